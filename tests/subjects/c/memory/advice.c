/* What madvise and mlock2 told the OS kernel about each mapping, as smaps shows it. */
#include "../subject.h"
#include <sys/mman.h>

#define SIZE (4u << 20)
#define COUNT 9
static const int advice[COUNT] = {0,
                                  MADV_DONTDUMP,
                                  MADV_HUGEPAGE,
                                  MADV_NOHUGEPAGE,
                                  MADV_SEQUENTIAL,
                                  MADV_RANDOM,
                                  MADV_DONTFORK,
                                  MADV_WIPEONFORK,
                                  MADV_MERGEABLE};
static char *areas[COUNT], before[COUNT][256], after[256];

static void flags_of(const char *area, char *flags)
{
    char line[512];
    bool found = false;
    FILE *smaps = fopen("/proc/self/smaps", "r");
    flags[0] = 0;
    while (fgets(line, sizeof line, smaps)) {
        unsigned long low, high;
        char rest;
        if (sscanf(line, "%lx-%lx%c", &low, &high, &rest) == 3)
            found = low <= (unsigned long)area && (unsigned long)area < high;
        else if (found && strncmp(line, "VmFlags:", 8) == 0)
            snprintf(flags, 256, "%.250s", line + 9);
    }
    fclose(smaps);
}

static void spoil(void) { madvise(areas[1], SIZE, MADV_DODUMP); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    for (int i = 0; i < COUNT; i++) {
        areas[i] = MUST_MAP(mmap(NULL, SIZE + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        MUST(mprotect(areas[i] + SIZE, 4096, PROT_NONE)); /* keeps neighbours apart */
        subject_fill(areas[i], 20000, (uint64_t)i);
        if (i && madvise(areas[i], SIZE, advice[i]) && errno != EINVAL)
            subject_fail("madvise %d: %s", advice[i], strerror(errno));
        flags_of(areas[i], before[i]);
    }
    subject_wait(spoil);
    for (int i = 0; i < COUNT; i++) {
        flags_of(areas[i], after);
        EXPECT(strcmp(before[i], after) == 0, "advice %d: the flags are %.60s instead of %.60s", advice[i], after,
               before[i]);
        EXPECT_FILLED(areas[i], 20000, (uint64_t)i, "a mapping's content");
    }
    subject_pass();
}
