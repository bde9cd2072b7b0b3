/* What differs between compilers and processors, in one place: no other file tests for a
   compiler. */
#ifndef FASTWS_PLATFORM_H
#define FASTWS_PLATFORM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define FASTWS_GNU 1
#else
#define FASTWS_GNU 0
#endif

/* Kernels for one instruction set live in ordinary translation units: each function names its
   target, so that no file needs compiler flags of its own.  MSVC takes any intrinsic without
   asking. */
#if FASTWS_GNU
#define FASTWS_TARGET(features) __attribute__((target(features)))
#define FASTWS_INLINE static inline __attribute__((always_inline))
#define FASTWS_NOINLINE __attribute__((noinline))
#define FASTWS_LIKELY(x) __builtin_expect(!!(x), 1)
#define FASTWS_UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#define FASTWS_TARGET(features)
#define FASTWS_INLINE static __forceinline
#define FASTWS_NOINLINE __declspec(noinline)
#define FASTWS_LIKELY(x) (x)
#define FASTWS_UNLIKELY(x) (x)
#endif

#if defined(__x86_64__) || defined(_M_X64)
#define FASTWS_X86 1
#else
#define FASTWS_X86 0
#endif

/* The AVX-512 kernels need VBMI2, which older compilers do not know. */
#if FASTWS_X86 && (!FASTWS_GNU || defined(__clang__) || __GNUC__ >= 9)
#define FASTWS_AVX512 1
#else
#define FASTWS_AVX512 0
#endif

#if (defined(__aarch64__) && !defined(__AARCH64EB__)) || defined(_M_ARM64)
#define FASTWS_NEON 1
#else
#define FASTWS_NEON 0
#endif

#if FASTWS_GNU && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define FASTWS_BIG_ENDIAN 1
#else
#define FASTWS_BIG_ENDIAN 0
#endif

/* GCC and clang clear the upper halves of the vector registers by themselves; MSVC has to be
   told. */
#if FASTWS_GNU
#define FASTWS_ZEROUPPER() ((void)0)
#else
#define FASTWS_ZEROUPPER() _mm256_zeroupper()
#endif

/* Loads and stores at any alignment: memcpy compiles to one instruction and, unlike a cast, is
   defined. */
FASTWS_INLINE uint64_t fastws_load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

FASTWS_INLINE uint32_t fastws_load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

FASTWS_INLINE void fastws_store64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, 8);
}

FASTWS_INLINE void fastws_store32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
}

#endif
