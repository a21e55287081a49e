/* POSIX shared memory by name, and unlinked while mapped. */
#include "../subject.h"
#include <sys/mman.h>

#define SIZE 120000

/* After our folder, so that whoever looks for leftovers knows whose it is. */
static void make_name(char *name, const char *end)
{
    MUST(snprintf(name, NAME_MAX, "/nbcr-subject%s%s", subject_base, end));
    for (char *at = name + 1; *at; at++)
        if (*at == '/')
            *at = '-';
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char name[NAME_MAX], gone[NAME_MAX];
    make_name(name, "");
    make_name(gone, "-gone");
    int fd = (int)MUST(shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600));
    int gone_fd = (int)MUST(shm_open(gone, O_RDWR | O_CREAT | O_EXCL, 0600));
    MUST(ftruncate(fd, SIZE));
    MUST(ftruncate(gone_fd, SIZE));
    char *area = MUST_MAP(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    char *gone_area = MUST_MAP(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, gone_fd, 0));
    MUST(close(gone_fd));
    MUST(shm_unlink(gone));
    subject_fill(area, SIZE, 1);
    subject_fill(gone_area, SIZE, 2);
    subject_wait(NULL);
    EXPECT_FILLED(area, SIZE, 1, "the memory");
    EXPECT_FILLED(gone_area, SIZE, 2, "the unlinked memory");
    int again = (int)MUST(shm_open(name, O_RDONLY, 0));
    const char *second = MUST_MAP(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, again, 0));
    area[99] = 'z';
    EXPECT(second[99] == 'z', "the name leads to other memory");
    EXPECT(shm_open(gone, O_RDONLY, 0) == -1, "the unlinked name is back");
    MUST(shm_unlink(name));
    subject_pass();
}
