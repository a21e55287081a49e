/*
 * A program that has moved the OS kernel's own code and data, or has unmapped its data: data: all of it; clocks: the part
 * for virtual machines; moved: the code is elsewhere, without its data; apart: all of it is, and something in its place.
 */
#include "../subject.h"
#include <sys/mman.h>
#include <sys/syscall.h>

static char areas[4][64];
static unsigned long starts[4], ends[4];
static int count;

static void look(void)
{
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    for (count = 0; fgets(line, sizeof line, maps);)
        if (strstr(line, "[v") && !strstr(line, "[vsyscall]")) {
            EXPECT(count < 4 && sscanf(line, "%lx-%lx", &starts[count], &ends[count]) == 2, "%s", line);
            snprintf(areas[count++], sizeof areas[0], "%s", strstr(line, "[v"));
        }
    fclose(maps);
}

/* Without the data the code must not be called: nanosleep(2) as a plain call. */
static void wait_plainly(void)
{
    subject_announce("ready");
    struct timespec tick = {.tv_nsec = 2000000};
    while (access(subject_go, F_OK) != 0)
        syscall(SYS_nanosleep, &tick, NULL);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *what = argc > 2 ? argv[2] : "data";
    bool apart = strcmp(what, "apart") == 0;
    look();
    char *place = MUST_MAP(mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (int i = 0; i < count; i++) {
        bool code = strstr(areas[i], "vdso") != NULL, clocks = strstr(areas[i], "vclock") != NULL;
        size_t size = ends[i] - starts[i];
        bool unmapped = strcmp(what, "clocks") == 0 ? clocks : strcmp(what, "moved") == 0 ? !code : !apart && !code;
        if (unmapped)
            MUST(munmap((void *)starts[i], size));
        else if (apart || strcmp(what, "moved") == 0)
            MUST(mremap((void *)starts[i], size, size, MREMAP_MAYMOVE | MREMAP_FIXED, place + (3 - i) * (128 << 10)));
        if (apart)
            MUST(mmap((void *)starts[i], size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    }
    look();
    int before = count;
    unsigned long begun[4];
    memcpy(begun, starts, sizeof begun);
    wait_plainly();
    look();
    EXPECT(count == before, "%d areas instead of %d", count, before);
    for (int i = 0; i < count; i++)
        EXPECT(starts[i] == begun[i], "%s at %lx instead of %lx", areas[i], starts[i], begun[i]);
    subject_pass();
}
