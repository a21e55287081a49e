/* Segment descriptors of its own (modify_ldt(2)). */
#include "../subject.h"
#include <asm/ldt.h>
#include <sys/syscall.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct user_desc segment = {.entry_number = 3, .base_addr = 0x10000, .limit = 0xfff, .seg_32bit = 1, .useable = 1};
    if (syscall(SYS_modify_ldt, 0x11, &segment, sizeof segment))
        subject_skip("an OS kernel with modify_ldt");
    char before[64], after[64];
    long size = MUST(syscall(SYS_modify_ldt, 0, before, sizeof before));
    subject_wait(NULL);
    EXPECT(syscall(SYS_modify_ldt, 0, after, sizeof after) == size, "the size differs");
    EXPECT(memcmp(before, after, sizeof before) == 0, "the segments differ");
    subject_pass();
}
