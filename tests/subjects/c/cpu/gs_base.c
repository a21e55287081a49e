/* The bases of both segments: fs serves TLS, gs a value of our own. */
#include "../subject.h"
#include <asm/prctl.h>
#include <sys/syscall.h>

static uint64_t area[4] = {11, 22, 33, 44};

static void spoil(void)
{
    syscall(SYS_arch_prctl, ARCH_SET_GS, &area[2]);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    unsigned long fs_before = 0, fs_after = 0, gs_after = 0;
    MUST(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs_before));
    MUST(syscall(SYS_arch_prctl, ARCH_SET_GS, &area[1]));
    subject_wait(spoil);
    MUST(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs_after));
    MUST(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs_after));
    EXPECT(fs_after == fs_before, "fs base %#lx instead of %#lx", fs_after, fs_before);
    EXPECT(gs_after == (unsigned long)&area[1], "gs base %#lx", gs_after);
    uint64_t through = 0;
    __asm__ volatile("movq %%gs:8, %0" : "=r"(through));
    EXPECT(through == 33, "reading through gs gives %lu", (unsigned long)through);
    subject_pass();
}
