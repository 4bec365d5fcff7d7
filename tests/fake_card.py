"""A card that is not there: a driver library (NVML) that answers what the environment says.

FAKE_CC (89 is compute capability 8.9), FAKE_GIB, FAKE_USED_MIB, FAKE_NAME, FAKE_DRIVER, FAKE_COUNT, and
FAKE_STATUS (an error code). Only what ``core.nvml`` asks; no CUDA.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = r"""
#include <stdlib.h>
#include <string.h>
typedef struct { unsigned long long total, free, used; } Memory;
static int number(const char *name, int otherwise) {
  const char *s = getenv(name);
  return s ? atoi(s) : otherwise;
}
static void text(char *to, unsigned size, const char *name, const char *otherwise) {
  const char *s = getenv(name);
  strncpy(to, s ? s : otherwise, size);
}
int nvmlInit_v2(void) { return number("FAKE_STATUS", 0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int status) { return "Driver/library version mismatch"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = number("FAKE_COUNT", 1); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **h) { *h = (void *)(unsigned long)(i + 16); return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **h) { *h = (void *)7; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *h, int *major, int *minor) {
  *major = number("FAKE_CC", 90) / 10;
  *minor = number("FAKE_CC", 90) % 10;
  return 0;
}
int nvmlDeviceGetMemoryInfo(void *h, Memory *m) {
  m->total = (unsigned long long)number("FAKE_GIB", 80) << 30;
  m->free = m->total - ((unsigned long long)number("FAKE_USED_MIB", 500) << 20);
  m->used = m->total - m->free;
  return 0;
}
int nvmlDeviceGetName(void *h, char *to, unsigned size) {
  text(to, size, "FAKE_NAME", "NVIDIA H100");
  return 0;
}
int nvmlSystemGetDriverVersion(char *to, unsigned size) {
  text(to, size, "FAKE_DRIVER", "580.95.05");
  return 0;
}
int nvmlDeviceGetUUID(void *h, char *to, unsigned size) {
  strncpy(to, h == (void *)7 ? "MIG-7" : h == (void *)16 ? "GPU-0a" : "GPU-1b", size);
  return 0;
}
"""


def build(folder: Path) -> Path:
    """The library's file in ``folder``, for LD_LIBRARY_PATH; skips without a C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make a fake card with")
    source, library = folder / "nvml.c", folder / "libnvidia-ml.so.1"
    source.write_text(SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", str(library), str(source)], check=True)
    return library
