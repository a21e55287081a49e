/* What madvise told the OS kernel about each mapping, private and shared, as smaps shows it. */
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
static char *areas[2 * COUNT], before[2 * COUNT][256], after[256]; /* private ones, then shared ones */

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
    for (int i = 0; i < 2 * COUNT; i++) {
        int flags = MAP_ANONYMOUS | (i < COUNT ? MAP_PRIVATE : MAP_SHARED);
        areas[i] = MUST_MAP(mmap(NULL, SIZE + 4096, PROT_READ | PROT_WRITE, flags, -1, 0));
        MUST(mprotect(areas[i] + SIZE, 4096, PROT_NONE)); /* keeps neighbours apart */
        subject_fill(areas[i], 20000, (uint64_t)i);
        int value = advice[i % COUNT];
        if (value && madvise(areas[i], SIZE, value) && errno != EINVAL) /* WIPEONFORK is for private memory only */
            subject_fail("madvise %d: %s", value, strerror(errno));
        flags_of(areas[i], before[i]);
    }
    subject_wait(spoil);
    for (int i = 0; i < 2 * COUNT; i++) {
        flags_of(areas[i], after);
        EXPECT(strcmp(before[i], after) == 0, "%s, advice %d: the flags are %.60s instead of %.60s",
               i < COUNT ? "private" : "shared", advice[i % COUNT], after, before[i]);
        EXPECT_FILLED(areas[i], 20000, (uint64_t)i, "a mapping's content");
    }
    subject_pass();
}
