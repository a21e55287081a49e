/* The main stack: what lies deep in it, and it grows on afterwards down to its limit. */
#include "../subject.h"
#include <sys/resource.h>

static __attribute__((noinline)) uint64_t dive(int depth, bool waiting)
{
    volatile uint64_t here[512];
    for (int i = 0; i < 512; i++)
        here[i] = subject_mix((uint64_t)(depth * 512 + i));
    uint64_t below = depth ? dive(depth - 1, waiting) : 0;
    if (!depth && waiting)
        subject_wait(NULL);
    for (int i = 0; i < 512; i++)
        EXPECT(here[i] == subject_mix((uint64_t)(depth * 512 + i)), "the frame at depth %d", depth);
    return below + here[0];
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    uint64_t first = dive(200, true); /* 0.8 MiB */
    EXPECT(first == dive(200, false), "the frames differ");
    dive(1200, false); /* 5 MiB: the stack must grow by itself */
    subject_pass();
}
