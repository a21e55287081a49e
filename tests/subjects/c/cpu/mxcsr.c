/* Rounding mode, masks and sticky flags of SSE. */
#include "../subject.h"
#include <fenv.h>

static void spoil(void)
{
    __builtin_ia32_ldmxcsr(0x1f80);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    unsigned before = 0x1f80 | 0x6000 | 0x8000 | 0x20; /* towards zero, flush to zero, inexact seen */
    __builtin_ia32_ldmxcsr(before);
    subject_wait(spoil);
    unsigned after = __builtin_ia32_stmxcsr();
    EXPECT(after == before, "mxcsr is %#x instead of %#x", after, before);
    volatile double one = 1, three = 3;
    volatile double down = one / three;
    fesetround(FE_UPWARD);
    EXPECT(one / three > down, "the rounding mode has no effect");
    subject_pass();
}
