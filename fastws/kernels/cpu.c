/* Detection of processor features and the choice of a kernel. */
#include "kernels.h"

#if FASTWS_X86 && !FASTWS_GNU
#include <immintrin.h>
#include <intrin.h>
#endif

#define TABLE(name_, mask_isa, utf8_isa, vectors)                                                 \
    {                                                                                             \
        name_, fastws_mask_##mask_isa, fastws_mask_ascii_##mask_isa,                              \
            fastws_utf8_valid_##utf8_isa, fastws_utf8_scan_##utf8_isa,                            \
            fastws_utf8_to_latin1_##utf8_isa, fastws_utf8_to_ucs2_##utf8_isa,                     \
            fastws_utf8_to_ucs4_##utf8_isa, vectors                                               \
    }

/* Slowest first: the best kernel is the last one that can run. */
static const fastws_kernel KERNELS[] = {
    TABLE("portable", portable, portable, 0),
#if FASTWS_X86
    TABLE("sse2", sse2, portable, 0), /* the lookups of the UTF-8 kernels need pshufb (SSSE3) */
    TABLE("ssse3", sse2, ssse3, 1),
    TABLE("avx2", avx2, avx2, 1),
#endif
#if FASTWS_AVX512
    TABLE("avx512", avx512, avx512, 1),
#endif
#if FASTWS_NEON
    TABLE("neon", neon, neon, 1),
#endif
};

#define KERNEL_COUNT (sizeof KERNELS / sizeof KERNELS[0])

const fastws_kernel *fastws_active_kernel = &KERNELS[0];

/* Every name that some build knows, to tell a typing error from a processor that is too old. */
static const char *const KNOWN[] = {"portable", "sse2", "ssse3", "avx2", "avx512", "neon"};

typedef struct {
    int ssse3;
    int avx2; /* and the system saves its registers */
    /* F, BW, VL, VBMI and VBMI2 (Ice Lake, Zen 4): older ones slow down under AVX-512 */
    int avx512;
} cpu_features;

#if FASTWS_X86 && FASTWS_GNU
static cpu_features detect(void)
{
    cpu_features f = {0, 0, 0};
    __builtin_cpu_init();
    f.ssse3 = __builtin_cpu_supports("ssse3") != 0;
    f.avx2 = f.ssse3 && __builtin_cpu_supports("avx2");
#if FASTWS_AVX512
    f.avx512 = f.avx2 && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt") &&
               __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
               __builtin_cpu_supports("avx512vbmi2");
#endif
    return f;
}
#elif FASTWS_X86
static cpu_features detect(void)
{
    cpu_features f = {0, 0, 0};
    int r[4], max_leaf, ecx1, ebx7, ecx7;
    unsigned long long saved;
    __cpuid(r, 0);
    max_leaf = r[0];
    __cpuid(r, 1);
    ecx1 = r[2];
    f.ssse3 = ecx1 >> 9 & 1;
    if (!f.ssse3 || !(ecx1 >> 27 & 1) || !(ecx1 >> 28 & 1) || max_leaf < 7)
        return f;
    saved = _xgetbv(0); /* registers that the operating system saves */
    if ((saved & 0x06) != 0x06)
        return f;
    __cpuidex(r, 7, 0);
    ebx7 = r[1];
    ecx7 = r[2];
    f.avx2 = ebx7 >> 5 & 1;
    f.avx512 = f.avx2 && (saved & 0xe6) == 0xe6 && (ebx7 >> 16 & 1) && (ebx7 >> 30 & 1) &&
               (ebx7 >> 31 & 1) && (ecx7 >> 1 & 1) && (ecx7 >> 6 & 1);
    return f;
}
#else
static cpu_features detect(void)
{
    cpu_features f = {0, 0, 0};
    return f;
}
#endif

static int can_run(const char *name)
{
    cpu_features f = detect();
    if (strcmp(name, "ssse3") == 0)
        return f.ssse3;
    if (strcmp(name, "avx2") == 0)
        return f.avx2;
    if (strcmp(name, "avx512") == 0)
        return f.avx512;
    return 1; /* portable; sse2 and neon belong to the baseline of x86-64 and arm64 */
}

size_t fastws_kernel_list(const char **names, size_t max)
{
    size_t count = 0;
    for (size_t i = 0; i < KERNEL_COUNT; i++) {
        if (!can_run(KERNELS[i].name))
            continue;
        if (count < max)
            names[count] = KERNELS[i].name;
        count++;
    }
    return count;
}

const fastws_kernel *fastws_kernel_by_name(const char *name)
{
    for (size_t i = 0; i < KERNEL_COUNT; i++)
        if (strcmp(KERNELS[i].name, name) == 0)
            return can_run(name) ? &KERNELS[i] : NULL;
    return NULL;
}

fastws_mask_fn fastws_mask_by_name(const char *name)
{
    const fastws_kernel *kernel = fastws_kernel_by_name(name);
    return kernel ? kernel->mask : NULL;
}

int fastws_kernel_available(const char *name)
{
    return fastws_kernel_by_name(name) != NULL;
}

const char *fastws_kernel_name(void)
{
    return fastws_active_kernel->name;
}

int fastws_kernels_init(const char *force)
{
    const fastws_kernel *kernel = &KERNELS[0];
    for (size_t i = 1; i < KERNEL_COUNT; i++)
        if (can_run(KERNELS[i].name))
            kernel = &KERNELS[i];
    fastws_active_kernel = kernel;
    if (force == NULL || force[0] == '\0' || strcmp(force, "auto") == 0)
        return FASTWS_KERNEL_OK;
    kernel = fastws_kernel_by_name(force);
    if (kernel != NULL) {
        fastws_active_kernel = kernel;
        return FASTWS_KERNEL_OK;
    }
    for (size_t i = 0; i < sizeof KNOWN / sizeof KNOWN[0]; i++)
        if (strcmp(KNOWN[i], force) == 0)
            return FASTWS_KERNEL_UNSUPPORTED;
    return FASTWS_KERNEL_UNKNOWN;
}
