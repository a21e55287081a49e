/* Shared mappings of files that /proc shows as deleted: one has another name, the other's own name ends so. */
#include "../subject.h"
#include <sys/mman.h>

static char *mapped(const char *path)
{
    int fd = (int)MUST(open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
    MUST(write(fd, "before", 6));
    char *area = MUST_MAP(mmap(NULL, 6, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    MUST(close(fd));
    return area;
}

static void expect_written(char *area, const char *path)
{
    EXPECT(memcmp(area, "before", 6) == 0, "the memory of %s", path);
    memcpy(area, "after!", 6);
    char text[6] = "";
    int fd = (int)MUST(open(path, O_RDONLY));
    MUST(read(fd, text, sizeof text));
    EXPECT(memcmp(text, "after!", 6) == 0, "what is written to the memory does not arrive in %s", path);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *first = subject_path("first"), *second = subject_path("second"), *odd = subject_path("x (deleted)");
    char *linked = mapped(first), *named = mapped(odd);
    MUST(link(first, second));
    MUST(unlink(first));
    subject_wait(NULL);
    expect_written(linked, second);
    expect_written(named, odd);
    subject_pass();
}
