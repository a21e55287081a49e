/* Droppable memory (as the vDSO's random numbers use): mapped still; two lives must not share what it held. */
#include "../subject.h"
#include <sys/mman.h>

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 8
#endif

static bool is_droppable(void *at)
{
    char line[512], head[32];
    bool here = false, found = false;
    snprintf(head, sizeof head, "%lx-", (unsigned long)at);
    FILE *smaps = fopen("/proc/self/smaps", "r");
    while (fgets(line, sizeof line, smaps)) {
        here |= strncmp(line, head, strlen(head)) == 0;
        if (here && strncmp(line, "VmFlags:", 8) == 0) {
            found = strstr(line, " dp");
            break;
        }
    }
    fclose(smaps);
    return found;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char *area = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_DROPPABLE, -1, 0);
    if (area == MAP_FAILED)
        subject_skip("MAP_DROPPABLE (OS kernel 6.11)");
    subject_fill(area, 65536, 9);
    subject_wait(NULL);
    bool zero = true, same = subject_differs(area, 65536, 9) < 0;
    for (int i = 0; i < 65536; i++)
        zero &= area[i] == 0;
    EXPECT(zero || same, "neither what it held nor nothing");
    EXPECT(!same, "the secret is in the image");
    EXPECT(is_droppable(area), "it is ordinary memory");
    subject_pass();
}
