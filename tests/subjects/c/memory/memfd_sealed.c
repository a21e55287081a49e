/* A memfd sealed against writing, mapped read-only. */
#include "../subject.h"
#include <sys/mman.h>

#define SIZE 50000

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static char content[SIZE];
    subject_fill(content, SIZE, 8);
    int fd = (int)MUST(memfd_create("sealed", MFD_ALLOW_SEALING));
    MUST(write(fd, content, SIZE));
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
    MUST(fcntl(fd, F_ADD_SEALS, seals));
    const char *area = MUST_MAP(mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0));
    subject_wait(NULL);
    EXPECT(memcmp(area, content, SIZE) == 0, "the content differs");
    EXPECT(fcntl(fd, F_GET_SEALS) == seals, "seals %#x", fcntl(fd, F_GET_SEALS));
    EXPECT(pwrite(fd, "x", 1, 0) == -1 && errno == EPERM, "it can be written to");
    subject_pass();
}
