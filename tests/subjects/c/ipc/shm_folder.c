/* Shared memory in a folder below /dev/shm, where joblib keeps arrays, mapped in both ways. */
#include "../subject.h"
#include <sys/mman.h>

#define SIZE 120000

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char folder[NAME_MAX], inner[NAME_MAX + 8], path[NAME_MAX + 16];
    MUST(snprintf(folder, sizeof folder, "/dev/shm/nbcr-subject%s", subject_base));
    for (char *at = folder + strlen("/dev/shm/"); *at; at++)
        if (*at == '/')
            *at = '-';
    MUST(snprintf(inner, sizeof inner, "%s/inner", folder));
    MUST(snprintf(path, sizeof path, "%s/array", inner));
    MUST(mkdir(folder, 0700));
    MUST(mkdir(inner, 0700));
    int fd = (int)MUST(open(path, O_RDWR | O_CREAT | O_EXCL, 0640));
    MUST(ftruncate(fd, SIZE));
    char *area = MUST_MAP(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    const char *copy = MUST_MAP(mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0));
    MUST(close(fd));
    subject_fill(area, SIZE, 1);
    struct stat before, after;
    MUST(stat(path, &before));
    subject_wait(NULL);

    EXPECT_FILLED(area, SIZE, 1, "the memory");
    EXPECT_FILLED(copy, SIZE, 1, "the private mapping");
    MUST(stat(path, &after));
    EXPECT(after.st_mode == before.st_mode, "the mode is %o", after.st_mode);
    int again = (int)MUST(open(path, O_RDONLY));
    const char *second = MUST_MAP(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, again, 0));
    area[99] = 'z';
    EXPECT(second[99] == 'z', "the name leads to other memory");
    MUST(unlink(path));
    MUST(rmdir(inner));
    MUST(rmdir(folder));
    subject_pass();
}
