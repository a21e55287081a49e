/* A memfd: content, name, seals, size, offset; mapped twice with different rights. */
#include "../subject.h"
#include <sys/mman.h>

#define SIZE 100000
static char *writable;
static void spoil(void) { memset(writable, 0, SIZE); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)MUST(memfd_create("a name of mine", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    MUST(ftruncate(fd, SIZE));
    writable = MUST_MAP(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    const char *readable = MUST_MAP(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0));
    subject_fill(writable, SIZE, 7);
    MUST(lseek(fd, 4242, SEEK_SET));
    MUST(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
    char link_before[200] = "", link_after[200] = "", self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    MUST(readlink(self, link_before, sizeof link_before - 1));
    subject_wait(spoil);
    EXPECT_FILLED(readable, SIZE, 7, "the content");
    EXPECT(fcntl(fd, F_GET_SEALS) == (F_SEAL_SHRINK | F_SEAL_GROW), "seals %#x", fcntl(fd, F_GET_SEALS));
    EXPECT(lseek(fd, 0, SEEK_CUR) == 4242, "offset %ld", (long)lseek(fd, 0, SEEK_CUR));
    EXPECT(fcntl(fd, F_GETFD) == FD_CLOEXEC, "close-on-exec is lost");
    MUST(readlink(self, link_after, sizeof link_after - 1));
    EXPECT(strcmp(link_before, link_after) == 0, "it is '%s' now", link_after);
    writable[SIZE - 1] = 'w';
    EXPECT(readable[SIZE - 1] == 'w', "the mappings no longer show the same memory");
    subject_pass();
}
