/* All vector registers of the widest kind that this processor has: xmm, ymm or zmm with the mask registers. */
#include "../subject.h"
#include <cpuid.h>

enum { SSE, AVX, AVX512 };

static unsigned char before[32][64] __attribute__((aligned(64))), after[32][64] __attribute__((aligned(64)));
static uint64_t masks_before[8], masks_after[8];

/* Waits with system calls and general registers only, so that no vector register is touched by us. */
__attribute__((target("general-regs-only"), noinline)) static void hold(const char *path)
{
    long result;
    do {
        for (int spin = 0; spin < 20000; spin++)
            __asm__ volatile("pause");
        __asm__ volatile("syscall" : "=a"(result) : "a"(21L), "D"(path), "S"(0L) : "rcx", "r11", "memory");
    } while (result != 0);
}

#define EACH16(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define HIGH16(X)                                                                                                     \
    X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31)
#define MASKS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7)

#define LOAD_XMM(n) __asm__ volatile("movups %0, %%xmm" #n : : "m"(before[n]));
#define STORE_XMM(n) __asm__ volatile("movups %%xmm" #n ", %0" : "=m"(after[n]));
#define LOAD_YMM(n) __asm__ volatile("vmovups %0, %%ymm" #n : : "m"(before[n]));
#define STORE_YMM(n) __asm__ volatile("vmovups %%ymm" #n ", %0" : "=m"(after[n]));
#define LOAD_ZMM(n) __asm__ volatile("vmovups %0, %%zmm" #n : : "m"(before[n]));
#define STORE_ZMM(n) __asm__ volatile("vmovups %%zmm" #n ", %0" : "=m"(after[n]));
#define LOAD_K(n) __asm__ volatile("kmovq %0, %%k" #n : : "m"(masks_before[n]));
#define STORE_K(n) __asm__ volatile("kmovq %%k" #n ", %0" : "=m"(masks_after[n]));

__attribute__((target("general-regs-only"), noinline)) static void keep_sse(const char *path)
{
    EACH16(LOAD_XMM)
    hold(path);
    EACH16(STORE_XMM)
}

__attribute__((target("general-regs-only"), noinline)) static void keep_avx(const char *path)
{
    EACH16(LOAD_YMM)
    hold(path);
    EACH16(STORE_YMM)
}

__attribute__((target("general-regs-only"), noinline)) static void keep_avx512(const char *path)
{
    EACH16(LOAD_ZMM)
    HIGH16(LOAD_ZMM)
    MASKS(LOAD_K)
    hold(path);
    EACH16(STORE_ZMM)
    HIGH16(STORE_ZMM)
    MASKS(STORE_K)
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    subject_fill(before, sizeof before, 1);
    subject_fill(masks_before, sizeof masks_before, 2);
    int kind = __builtin_cpu_supports("avx512bw") ? AVX512 : __builtin_cpu_supports("avx") ? AVX : SSE;
    subject_announce("ready");
    (kind == AVX512 ? keep_avx512 : kind == AVX ? keep_avx : keep_sse)(subject_go);
    int count = kind == AVX512 ? 32 : 16;
    size_t width = kind == AVX512 ? 64 : kind == AVX ? 32 : 16;
    for (int i = 0; i < count; i++)
        EXPECT(memcmp(before[i], after[i], width) == 0, "vector register %d differs", i);
    for (int i = 1; i < 8 && kind == AVX512; i++)
        EXPECT(masks_before[i] == masks_after[i], "mask register k%d differs", i);
    subject_pass();
}
