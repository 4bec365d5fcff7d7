/* A CUDA driver with no device: every call fails with CUDA_ERROR_NO_DEVICE (100), so nothing can run. */
int cuCtxGetCurrent(void){return 100;}
int cuCtxSetCurrent(void){return 100;}
int cuDeviceGetAttribute(void){return 100;}
int cuDevicePrimaryCtxRetain(void){return 100;}
int cuGetErrorString(void){return 100;}
int cuGetProcAddress_v2(void){return 100;}
int cuInit(unsigned f){return 100;}
int cuMemAddressFree(void){return 100;}
int cuMemAddressReserve(void){return 100;}
int cuMemCreate(void){return 100;}
int cuMemGetAllocationGranularity(void){return 100;}
int cuMemMap(void){return 100;}
int cuMemRelease(void){return 100;}
int cuMemSetAccess(void){return 100;}
int cuMemUnmap(void){return 100;}
int cuPointerGetAttribute(void){return 100;}
int cuTensorMapEncodeTiled(void){return 100;}
