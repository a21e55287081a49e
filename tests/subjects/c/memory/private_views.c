/* Private mappings of a memfd and of a deleted file: where they were not written to, they show later writes to the file. */
#include "../subject.h"
#include <sys/mman.h>

#define PAGE 4096

static void check(int fd, char *view, const char *what)
{
    EXPECT(view[0] == 'm' && view[PAGE - 1] == 'f', "%s: the page that was written to is %c%c", what, view[0], view[PAGE - 1]);
    MUST(pwrite(fd, "n", 1, 0));
    MUST(pwrite(fd, "n", 1, PAGE));
    EXPECT(view[0] == 'm', "%s: a page of its own shows what others wrote", what);
    EXPECT(view[PAGE] == 'n', "%s: a page of the file's is '%c', not what was written to it", what, view[PAGE]);
    view[PAGE + 1] = 'x';
    char byte;
    MUST(pread(fd, &byte, 1, PAGE + 1));
    EXPECT(byte == 'f', "%s: the file has what was written privately", what);
}

static char *set_up(int fd)
{
    char page[PAGE];
    memset(page, 'f', PAGE);
    for (int i = 0; i < 3; i++)
        MUST(pwrite(fd, page, PAGE, i * PAGE));
    char *view = MUST_MAP(mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    view[0] = 'm';
    return view;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int shown = (int)MUST(memfd_create("shown", 0)), alone = (int)MUST(memfd_create("alone", 0));
    int file = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_EXCL, 0600));
    char *views[] = {set_up(shown), set_up(alone), set_up(file)};
    char *shared = MUST_MAP(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, shown, 2 * PAGE));
    MUST(unlink(subject_path("file")));
    subject_wait(NULL);
    check(shown, views[0], "a memfd that is mapped shared, too");
    check(alone, views[1], "a memfd");
    check(file, views[2], "a deleted file");
    shared[0] = 's';
    EXPECT(views[0][2 * PAGE] == 's', "the private mapping does not show the shared one");
    subject_pass();
}
