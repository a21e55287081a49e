/*
 * Shared mappings of files that /proc shows as deleted: one has another name, the other's own name ends so. With argv[2]
 * the descriptors by which they were mapped stay open, too, and a third one is open by its name in another folder only.
 */
#include "../subject.h"
#include <sys/mman.h>

static bool stay_open;
static int opened[3];

static char *mapped(const char *path, int *fd_of)
{
    int fd = (int)MUST(open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
    MUST(write(fd, "before", 6));
    char *area = MUST_MAP(mmap(NULL, 6, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    *fd_of = fd;
    if (!stay_open)
        MUST(close(fd));
    return area;
}

static void expect_written(char *area, int kept, const char *path)
{
    EXPECT(memcmp(area, "before", 6) == 0, "the memory of %s", path);
    memcpy(area, "after!", 6);
    char text[6] = "";
    int fd = (int)MUST(open(path, O_RDONLY));
    MUST(read(fd, text, sizeof text));
    EXPECT(memcmp(text, "after!", 6) == 0, "what is written to the memory does not arrive in %s", path);
    struct stat held, found;
    if (stay_open && (MUST(fstat(kept, &held)), MUST(fstat(fd, &found)), held.st_ino != found.st_ino))
        subject_fail("the descriptor of %s leads to another file", path);
    memcpy(area, "before", 6);  /* what is in a file that has a name is in no image: for the next life */
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    stay_open = argc > 2;
    const char *first = subject_path("first"), *second = subject_path("second"), *odd = subject_path("x (deleted)");
    char *linked = mapped(first, &opened[0]), *named = mapped(odd, &opened[1]);
    MUST(link(first, second));
    MUST(unlink(first));
    const char *third = subject_path("third");
    char *elsewhere = stay_open ? mapped(third, &opened[2]) : NULL, moved[PATH_MAX];
    if (stay_open) {
        MUST(close(opened[2]));
        MUST(mkdir(subject_path("folder"), 0700));
        snprintf(moved, sizeof moved, "%s/name", subject_path("folder"));
        MUST(link(third, moved));
        MUST(unlink(third));
        opened[2] = (int)MUST(open(moved, O_RDWR));
    }
    subject_wait(NULL);
    expect_written(linked, opened[0], second);
    expect_written(named, opened[1], odd);
    if (stay_open)
        expect_written(elsewhere, opened[2], moved);
    subject_pass();
}
