/* A private file mapping: pages of the file and pages changed in memory; the file does not change. */
#include "../subject.h"
#include <sys/mman.h>

#define SIZE 262144
static char *area;
static void spoil(void) { memset(area, 0, SIZE); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static char content[SIZE], now[SIZE];
    subject_fill(content, SIZE, 4);
    int fd = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    MUST(write(fd, content, SIZE));
    area = MUST_MAP(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    subject_fill(area + 8192, 4096, 5);
    subject_fill(area + 100000, 10, 6);
    memcpy(content + 8192, area + 8192, 4096);
    memcpy(content + 100000, area + 100000, 10);
    subject_wait(spoil);
    EXPECT(memcmp(area, content, SIZE) == 0, "the mapping differs");
    MUST(pread(fd, now, SIZE, 0));
    EXPECT_FILLED(now, SIZE, 4, "the file");
    subject_pass();
}
