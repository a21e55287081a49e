/* The x87 stack, its control word and the MMX view of it. Nothing else in this program uses x87. */
#include "../subject.h"

static void spoil(void)
{
    __asm__ volatile("fninit");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    uint16_t control = 0x0e7f, control_after = 0; /* round towards zero, 53 bits */
    double values[3] = {1.25, -3.5e300, 0x1.fffffffffffffp-1000}, after[3];
    __asm__ volatile("fninit; fldcw %0; fldl %1; fldl %2; fldl %3"
                     :
                     : "m"(control), "m"(values[0]), "m"(values[1]), "m"(values[2]));
    subject_wait(spoil);
    __asm__ volatile("fnstcw %0; fstpl %1; fstpl %2; fstpl %3"
                     : "=m"(control_after), "=m"(after[2]), "=m"(after[1]), "=m"(after[0]));
    EXPECT(control_after == control, "control word %#x", control_after);
    for (int i = 0; i < 3; i++)
        EXPECT(after[i] == values[i], "st value %d is %g", i, after[i]);
    subject_pass();
}
