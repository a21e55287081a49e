/* Explicit huge pages, private and shared (the host must have some to give). */
#include "../subject.h"
#include <sys/mman.h>

#define SIZE (2u << 20)

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char *areas[2];
    for (int i = 0; i < 2; i++) {
        int flags = (i ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS | MAP_HUGETLB;
        areas[i] = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (areas[i] == MAP_FAILED)
            subject_skip("2 free huge pages of 2 MiB");
        subject_fill(areas[i], SIZE, (uint64_t)i);
    }
    subject_wait(NULL);
    for (int i = 0; i < 2; i++)
        EXPECT_FILLED(areas[i], SIZE, (uint64_t)i, "a huge page");
    EXPECT(atol(subject_proc("status", "HugetlbPages:")) == 4096, "%s of huge pages",
           subject_proc("status", "HugetlbPages:"));
    subject_pass();
}
