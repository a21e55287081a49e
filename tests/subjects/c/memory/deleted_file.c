/* Private and shared mappings of a file that was deleted since, the descriptor closed. */
#include "../subject.h"
#include <sys/mman.h>

#define SIZE 200000

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static char content[SIZE];
    subject_fill(content, SIZE, 4);
    int fd = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    MUST(write(fd, content, SIZE));
    char *shared = MUST_MAP(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    char *second = MUST_MAP(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0));
    char *private = MUST_MAP(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    subject_fill(private, 4096, 5);
    MUST(close(fd));
    MUST(unlink(subject_path("file")));
    subject_wait(NULL);
    EXPECT(memcmp(shared, content, SIZE) == 0, "the shared mapping differs");
    EXPECT_FILLED(private, 4096, 5, "the changed page of the private mapping");
    EXPECT(memcmp(private + 4096, content + 4096, SIZE - 4096) == 0, "the private mapping differs");
    shared[SIZE - 1] ^= 0x55;
    EXPECT(second[SIZE - 1] == shared[SIZE - 1], "the shared mappings no longer show the same file");
    EXPECT(access(subject_path("file"), F_OK) == -1, "the file is back in its folder");
    subject_pass();
}
