/* A shared file mapping at an offset: writes reach the file, writes to the file reach it. */
#include "../subject.h"
#include <sys/mman.h>

#define SIZE 131072

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static char content[2 * SIZE];
    subject_fill(content, sizeof content, 4);
    int fd = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    MUST(write(fd, content, sizeof content));
    char *area = MUST_MAP(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, SIZE));
    char *readable = MUST_MAP(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0));
    memcpy(area + 5000, "changed", 7);
    memcpy(content + SIZE + 5000, "changed", 7);
    subject_wait(NULL);
    EXPECT(memcmp(area, content + SIZE, SIZE) == 0, "the mapping differs");
    EXPECT(memcmp(readable, content, SIZE) == 0, "the read-only mapping differs");
    area[77] = 'z';
    char byte = 0;
    MUST(pread(fd, &byte, 1, SIZE + 77));
    EXPECT(byte == 'z', "a write to the memory does not reach the file");
    MUST(pwrite(fd, "q", 1, 99));
    EXPECT(readable[99] == 'q', "a write to the file does not reach the memory");
    subject_pass();
}
