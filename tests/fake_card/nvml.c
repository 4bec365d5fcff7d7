/* A driver library (NVML) that answers what the environment says: FAKE_CC (89 is compute capability 8.9),
   FAKE_GIB, FAKE_USED_MIB, FAKE_NAME, FAKE_DRIVER, FAKE_COUNT, FAKE_GIB_1 (of the second card, if it differs) and
   FAKE_STATUS (an error code). What kmmlu_fast.machine.gpus, torch and vLLM ask; nothing else. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef void *Handle;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory2;
static int number(const char *name, int otherwise) {
  const char *s = getenv(name);
  return s ? atoi(s) : otherwise;
}
static void text(char *to, unsigned size, const char *name, const char *otherwise) {
  const char *s = getenv(name);
  strncpy(to, s ? s : otherwise, size);
}
static unsigned index_of(Handle h) { return (unsigned)(unsigned long)h - 16; }
static unsigned long long total_of(Handle h) {
  int first = number("FAKE_GIB", 80);
  return (unsigned long long)(index_of(h) == 1 ? number("FAKE_GIB_1", first) : first) << 30;
}
int nvmlInit(void) { return number("FAKE_STATUS", 0); }
int nvmlInit_v2(void) { return number("FAKE_STATUS", 0); }
int nvmlInitWithFlags(unsigned flags) { return number("FAKE_STATUS", 0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int status) { return "Driver/library version mismatch"; }
int nvmlDeviceGetCount(unsigned *count) { *count = number("FAKE_COUNT", 1); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = number("FAKE_COUNT", 1); return 0; }
int nvmlDeviceGetHandleByIndex(unsigned i, Handle *h) { *h = (Handle)(unsigned long)(i + 16); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, Handle *h) { *h = (Handle)(unsigned long)(i + 16); return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, Handle *h) {
  *h = (Handle)(strncmp(uuid, "MIG-", 4) ? 16L : 7L);
  return 0;
}
int nvmlDeviceGetIndex(Handle h, unsigned *i) { *i = index_of(h); return 0; }
int nvmlDeviceGetCudaComputeCapability(Handle h, int *major, int *minor) {
  *major = number("FAKE_CC", 90) / 10;
  *minor = number("FAKE_CC", 90) % 10;
  return 0;
}
int nvmlDeviceGetMemoryInfo(Handle h, Memory *m) {
  m->total = total_of(h);
  m->used = (unsigned long long)number("FAKE_USED_MIB", 500) << 20;
  m->free = m->total - m->used;
  return 0;
}
int nvmlDeviceGetMemoryInfo_v2(Handle h, Memory2 *m) {
  m->total = total_of(h);
  m->reserved = 0;
  m->used = (unsigned long long)number("FAKE_USED_MIB", 500) << 20;
  m->free = m->total - m->used;
  return 0;
}
int nvmlDeviceGetName(Handle h, char *to, unsigned size) {
  text(to, size, "FAKE_NAME", "NVIDIA H100");
  return 0;
}
int nvmlSystemGetDriverVersion(char *to, unsigned size) {
  text(to, size, "FAKE_DRIVER", "580.95.05");
  return 0;
}
int nvmlDeviceGetUUID(Handle h, char *to, unsigned size) {
  if (h == (Handle)7L) strncpy(to, "MIG-7", size);
  else snprintf(to, size, index_of(h) == 0 ? "GPU-0a" : index_of(h) == 1 ? "GPU-1b" : "GPU-%u", index_of(h));
  return 0;
}
int nvmlDeviceGetNumaNodeId(Handle h, unsigned *node) { *node = 0; return 0; }
