/* A driver library for tests: its device memory is the host's, its kernels are the toy's, and it refuses what a driver
   would refuse. The environment says what machine it plays. Compiled together with the toy's kernels. Beside them it
   knows the kernel that makes random weights. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int result;
typedef void *handle;
enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NO_DEVICE = 100, BAD_IMAGE = 200, BAD_PTX = 218, NOT_FOUND = 500, CAPTURING = 900 };

static long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}
static void refuse(const char *what) { fprintf(stderr, "libcuda: %s\n", what); abort(); }

result cuGetErrorName(result error, const char **text) {
    *text = error == BAD_PTX ? "CUDA_ERROR_INVALID_PTX" : error == NO_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR";
    return OK;
}
result cuGetErrorString(result error, const char **text) {
    *text = error == BAD_PTX ? "the PTX is wrong" : "something is wrong";
    return OK;
}
result cuDriverGetVersion(int *version) { *version = (int)setting("STUB_VERSION", 12020); return OK; }
static int count(void) { return (int)setting("STUB_GPUS", 1); }
result cuInit(unsigned flags) { return count() == 0 ? NO_DEVICE : OK; }
result cuDeviceGetCount(int *to) { *to = count(); return OK; }
result cuDeviceGet(int *device, int number) { *device = number; return number < count() ? OK : INVALID; }
result cuDeviceGetName(char *name, int length, int device) { snprintf(name, length, "Stub %d", device); return OK; }
result cuDeviceGetAttribute(int *value, int attribute, int device) {
    long capability = setting("STUB_CAPABILITY", 86);
    if (attribute == 75) *value = (int)(capability / 10);
    else if (attribute == 76) *value = (int)(capability % 10);
    else return INVALID;
    return OK;
}

/* The context, and what has been taken in it and not been given back. */
static int contexts, taken, current;
static size_t used;
result cuDevicePrimaryCtxRetain(handle *context, int device) { ++contexts; *context = &contexts; return OK; }
result cuDevicePrimaryCtxRelease_v2(int device) {
    if (taken != 0) refuse("not everything was given back");
    --contexts;
    return OK;
}
result cuCtxSetCurrent(handle context) { current = context == &contexts; return OK; }
static void in_context(void) { if (!contexts || !current) refuse("no context"); }
static handle take(size_t bytes) { in_context(); ++taken; return calloc(1, bytes); }
static result give(handle it) { in_context(); if (!it) refuse("given back twice"); --taken; free(it); return OK; }

/* Memory: the size stands before it. */
result cuMemGetInfo_v2(size_t *left, size_t *total) {
    in_context();
    *total = (size_t)setting("STUB_FREE", 64 << 20);
    *left = *total - used;
    return OK;
}
result cuMemAlloc_v2(unsigned long *to, size_t bytes) {
    in_context();
    if (bytes == 0) return INVALID;
    char *start = aligned_alloc(256, (bytes + 511) / 256 * 256);
    *(size_t *)start = bytes;
    memset(start + 256, 0xAB, bytes);
    used += bytes;
    ++taken;
    *to = (unsigned long)(start + 256);
    return OK;
}
result cuMemFree_v2(unsigned long at) {
    char *start = (char *)at - 256;
    used -= *(size_t *)start;
    return give(start);
}
result cuMemHostAlloc(handle *to, size_t bytes, unsigned flags) { *to = take(bytes); return OK; }
result cuMemFreeHost(handle at) { return give(at); }

/* Work is done when it is asked for, but for what is recorded. */
struct work { int kernel; unsigned grid[3]; size_t bytes; char parameters[1024]; };
struct graph { int length; struct work work[64]; };
static struct graph *recording;
static void working(void) { in_context(); if (recording) refuse("a recording has launches only"); }

result cuStreamCreate(handle *to, unsigned flags) { *to = take(8); return flags == 1 ? OK : INVALID; }
result cuStreamDestroy_v2(handle stream) { return give(stream); }
result cuStreamSynchronize(handle stream) { working(); return OK; }
result cuMemcpyHtoDAsync_v2(unsigned long to, const void *from, size_t bytes, handle stream) {
    working();
    memcpy((void *)to, from, bytes);
    return OK;
}
result cuMemcpyDtoHAsync_v2(void *to, unsigned long from, size_t bytes, handle stream) {
    working();
    memcpy(to, (void *)from, bytes);
    return OK;
}
result cuMemcpyDtoDAsync_v2(unsigned long to, unsigned long from, size_t bytes, handle stream) {
    working();
    memcpy((void *)to, (void *)from, bytes);
    return OK;
}
result cuMemsetD8Async(unsigned long to, unsigned char value, size_t bytes, handle stream) {
    working();
    memset((void *)to, value, bytes);
    return OK;
}

result cuEventCreate(handle *to, unsigned flags) { *to = take(8); return OK; }
result cuEventDestroy_v2(handle event) { return give(event); }
result cuEventRecord(handle event, handle stream) { working(); *(int *)event = 1; return OK; }
result cuEventSynchronize(handle event) { working(); return OK; }
result cuEventElapsedTime(float *millis, handle first, handle second) {
    *millis = 0.5f;
    return *(int *)first && *(int *)second ? OK : INVALID;
}

/* Modules: PTX, or machine code, which is `CODE` and PTX. */
static void say(unsigned options, int *names, void **values, const char *what) {
    char *log = NULL;
    size_t size = 0;
    for (unsigned n = 0; n < options; ++n) {
        if (names[n] == 5) log = values[n];
        if (names[n] == 6) size = (size_t)values[n];
    }
    if (log) snprintf(log, size, "%s\n", what);
}
result cuModuleLoadDataEx(handle *to, const char *image, unsigned options, int *names, void **values) {
    in_context();
    int code = !strncmp(image, "CODE", 4);
    const char *ptx = image + (code ? 4 : 0);
    if (strncmp(ptx, ".version", 8)) { say(options, names, values, "this is neither"); return BAD_IMAGE; }
    if (strstr(ptx, "mistake")) { say(options, names, values, "line 3: a mistake"); return BAD_PTX; }
    if (!code && setting("STUB_NO_JIT", 0)) return BAD_PTX;
    *to = take(strlen(ptx) + 1);
    strcpy(*to, ptx);
    return OK;
}
result cuModuleUnload(handle module) { return give(module); }
struct link { char *code; };
result cuLinkCreate_v2(unsigned options, int *names, void **values, handle *state) {
    *state = take(sizeof(struct link));
    say(options, names, values, "");
    return OK;
}
result cuLinkAddData_v2(struct link *state, int kind, const char *data, size_t size, const char *name, unsigned options,
                        int *names, void **values) {
    if (kind != 1 || strlen(data) + 1 != size) return INVALID;
    if (strstr(data, "mistake")) return BAD_PTX;
    state->code = malloc(size + 4);
    memcpy(state->code, "CODE", 4);
    memcpy(state->code + 4, data, size);
    return OK;
}
result cuLinkComplete(struct link *state, void **code, size_t *size) {
    *code = state->code;
    *size = strlen(state->code) + 1;
    return state->code ? OK : INVALID;
}
result cuLinkDestroy(struct link *state) { free(state->code); return give(state); }

static const struct { const char *name; int args; void (*run)(char **, const struct dims *, u32, u32); } KERNELS[] = {
    { "toy_embed", 4, toy_embed }, { "toy_scan", 7, toy_scan }, { "toy_cache", 6, toy_cache },
    { "toy_head", 3, toy_head }, { "toy_sample", 5, toy_sample }, { "nemort_random", 0, NULL },
};
enum { RANDOM = 5, MANY = 6 };
static int shared[MANY];
result cuModuleGetFunction(handle *to, const char *module, const char *name) {
    char entry[64];
    snprintf(entry, sizeof entry, ".entry %s(", name);
    for (unsigned long n = 0; n < MANY; ++n)
        if (!strcmp(name, KERNELS[n].name) && strstr(module, entry)) { *to = (handle)(n + 1); return OK; }
    return NOT_FOUND;
}
result cuFuncSetAttribute(handle function, int attribute, int value) {
    if (attribute != 8 || value > 101376) return INVALID;
    shared[(long)function - 1] = value;
    return OK;
}
result cuFuncGetAttribute(int *value, int attribute, handle function) {
    *value = 1024;
    return attribute == 0 ? OK : INVALID;
}

static u64 mix(u64 x) {
    x *= 0x9E3779B97F4A7C15;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    return x ^ x >> 31;
}
static void random_weights(const struct work *work) {
    struct { u64 address, count, seed; float low, span; u32 log, kind; } of;
    if (work->bytes != sizeof of) refuse("a block of another size");
    memcpy(&of, work->parameters, sizeof of);
    for (u64 n = 0; n < of.count; ++n) {
        u64 seed = mix(of.seed + (n >> of.log)), at = n & ((1ul << of.log) - 1);
        union { float f; u32 u; } x = { (mix(seed + at) >> 40) / 16777216.0f * of.span + of.low };
        /* Close enough: the last bit is rounded towards zero. */
        if (of.kind == 1) ((u16 *)of.address)[n] = x.u >> 16;
        else if (of.kind == 0) ((float *)of.address)[n] = x.f;
        else refuse("a dtype that the toy has not");
    }
}

static void run(const struct work *work) {
    if (work->kernel == RANDOM) { random_weights(work); return; }
    char *args[16];
    int values[4], many = KERNELS[work->kernel].args;
    size_t at = (many + 2) * 8;
    if (work->bytes != at + 16 && work->bytes != (at + 16 + 63) / 64 * 64 + 256) refuse("a block of another size");
    memcpy(args, work->parameters, many * 8);
    memcpy(values, work->parameters + at, 16);
    struct dims dims = { values[0], values[1], values[2], values[3] };
    for (u32 thread = 0; thread < work->grid[0]; ++thread) KERNELS[work->kernel].run(args, &dims, thread, work->grid[0]);
}
result cuLaunchKernel(handle function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                      unsigned dynamic, handle stream, void **parameters, void **extra) {
    in_context();
    struct work work = { (int)(long)function - 1, { x, y, z } };
    if (!x || !y || !z || bx > 1024 || by != 1 || bz != 1 || parameters) return INVALID;
    if (dynamic > 48 << 10 && (int)dynamic > shared[work.kernel]) return INVALID;
    if (extra[0] != (void *)1 || extra[2] != (void *)2 || extra[4]) return INVALID;
    work.bytes = *(size_t *)extra[3];
    memcpy(work.parameters, extra[1], work.bytes);
    if (recording) recording->work[recording->length++] = work;
    else run(&work);
    return OK;
}
result cuStreamBeginCapture_v2(handle stream, int mode) { working(); recording = take(sizeof *recording); return OK; }
result cuStreamEndCapture(handle stream, handle *graph) {
    in_context();
    *graph = recording;
    recording = NULL;
    return *graph ? OK : CAPTURING;
}
result cuGraphInstantiateWithFlags(struct graph **to, struct graph *graph, unsigned long flags) {
    *to = take(sizeof **to);
    **to = *graph;
    return OK;
}
result cuGraphDestroy(handle graph) { return give(graph); }
result cuGraphExecDestroy(handle graph) { return give(graph); }
result cuGraphLaunch(struct graph *graph, handle stream) {
    working();
    for (int n = 0; n < graph->length; ++n) run(&graph->work[n]);
    return OK;
}

result cuTensorMapEncodeTiled(void *map, int type, unsigned rank, void *address, const unsigned long *dims,
                              const unsigned long *strides, const unsigned *boxes, const unsigned *steps, int interleave,
                              int swizzle, int promotion, int fill) {
    if ((unsigned long)map % 64 || rank != 2 || (unsigned long)address % 16 || strides[0] % 16) return INVALID;
    if (boxes[0] > 256 || boxes[1] > 256 || steps[0] != 1 || steps[1] != 1) return INVALID;
    memset(map, 0x5A, 128);
    return OK;
}
