/* A mapping that grows downwards when it is touched below. */
#include "../subject.h"
#include <sys/mman.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char *room = MUST_MAP(mmap(NULL, 8 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    MUST(munmap(room, 8 << 20));
    char *area = MUST_MAP(mmap(room + (7 << 20), 65536, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0));
    subject_fill(area, 65536, 9);
    for (char *at = area; at > area - 40960; at -= 4096)
        *(volatile char *)at = *at;
    subject_fill(area - 40960, 40960, 10);
    subject_wait(NULL);
    EXPECT_FILLED(area, 65536, 9, "the mapping");
    EXPECT_FILLED(area - 40960, 40960, 10, "what it grew by");
    for (char *at = area - 40960; at > area - 200000; at -= 4096)
        *(volatile char *)at = 1;
    subject_pass();
}
