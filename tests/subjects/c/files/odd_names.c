/* Names with spaces, newlines, bytes that are no UTF-8, and one that ends as the names of deleted files do. */
#include "../subject.h"

static const char *names[] = {"a name with spaces", "two\nlines", "tab\tand \\012 written out", "\xff\xfe no UTF-8",
                              "still here (deleted)", "-rf", "[anon:x]"};
#define COUNT ((int)(sizeof names / sizeof *names))

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fds[COUNT];
    MUST(mkdir(subject_path("folder"), 0700));
    int folder = (int)MUST(open(subject_path("folder"), O_PATH | O_DIRECTORY));
    for (int i = 0; i < COUNT; i++) {
        fds[i] = (int)MUST(openat(folder, names[i], O_RDWR | O_CREAT | O_EXCL, 0600));
        MUST(write(fds[i], names[i], strlen(names[i])));
    }
    subject_wait(NULL);
    for (int i = 0; i < COUNT; i++) {
        char text[100] = "";
        struct stat open_one, named;
        EXPECT(pread(fds[i], text, sizeof text, 0) == (ssize_t)strlen(names[i]) && !strcmp(text, names[i]),
               "file %d is another one", i);
        MUST(fstat(fds[i], &open_one));
        MUST(fstatat(folder, names[i], &named, 0));
        EXPECT(open_one.st_ino == named.st_ino && open_one.st_nlink == 1, "file %d is a copy", i);
        MUST(unlinkat(folder, names[i], 0));
    }
    subject_pass();
}
