/* A layout with neighbours, holes and odd pieces: /proc/self/maps shows the same ranges and rights. Neighbours with the
   same rights count as one: whether the OS kernel merges them depends on its bookkeeping of shared pages. */
#include "../subject.h"
#include <sys/mman.h>

static char *take(void)
{
    size_t room = 1 << 18, used = 0, line_at = 0;
    unsigned long first = 0, last = 0;
    char last_rights[5] = "";
    char *text = calloc(1, room), line[4400];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps)) {
        unsigned long low, high;
        char rights[5];
        sscanf(line, "%lx-%lx %4s", &low, &high, rights);
        if (strstr(line, "[stack]") || strstr(line, "[heap]") || strstr(line, "[vsyscall]"))
            continue; /* may grow meanwhile */
        if (low == last && strcmp(rights, last_rights) == 0)
            used = line_at; /* write the line again, longer */
        else
            first = low;
        line_at = used;
        used += (size_t)snprintf(text + used, room - used, "%lx-%lx %s\n", first, high, rights);
        last = high;
        memcpy(last_rights, rights, sizeof rights);
    }
    fclose(maps);
    return text;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char *area = MUST_MAP(mmap(NULL, 64 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (int i = 0; i < 64; i++) {
        subject_fill(area + (i << 12), 4096, (uint64_t)i);
        if (i % 5 == 1)
            MUST(munmap(area + (i << 12), 4096));
        else if (i % 5 == 3)
            MUST(mprotect(area + (i << 12), 4096, PROT_READ));
    }
    char *moved = MUST_MAP(mremap(area + (2 << 12), 4096, 8192, MREMAP_MAYMOVE));
    free(take()); /* the first call may grow the heap */
    char *before = take();
    subject_wait(NULL);
    char *after = take();
    size_t same = 0;
    while (before[same] && before[same] == after[same])
        same++;
    while (same && before[same - 1] != '\n')
        same--;
    EXPECT(strcmp(before, after) == 0, "the maps differ: %.45s instead of %.45s", after + same, before + same);
    EXPECT_FILLED(moved, 4096, 2, "the moved page");
    for (int i = 3; i < 64; i++)
        if (i % 5 != 1)
            EXPECT_FILLED(area + (i << 12), 4096, (uint64_t)i, "a page");
    subject_pass();
}
