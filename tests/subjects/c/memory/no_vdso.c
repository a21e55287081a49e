/* A program that has unmapped the vDSO and its data. */
#include "../subject.h"
#include <sys/mman.h>
#include <sys/syscall.h>

static void unmap(const char *name)
{
    char line[512];
    unsigned long start, end;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps))
        if (strstr(line, name) && sscanf(line, "%lx-%lx", &start, &end) == 2)
            MUST(munmap((void *)start, end - start));
    fclose(maps);
}

static void wait_without_vdso(void)
{
    subject_announce("ready");
    struct timespec tick = {.tv_nsec = 2000000};
    while (access(subject_go, F_OK) != 0)
        nanosleep(&tick, NULL);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static char area[40000];
    subject_fill(area, sizeof area, 1);
    unmap("[vdso]");
    unmap("[vvar]");
    unmap("[vvar_vclock]");
    wait_without_vdso();
    EXPECT_FILLED(area, sizeof area, 1, "the memory");
    struct timespec now;
    MUST(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now));
    subject_pass();
}
