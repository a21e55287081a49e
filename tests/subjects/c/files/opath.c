/* O_PATH descriptors of a file, a folder, a symbolic link, and one that has been removed. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    close((int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600)));
    MUST(mkdir(subject_path("folder"), 0700));
    MUST(symlink("somewhere", subject_path("link")));
    static const char *names[] = {"file", "folder", "link"};
    static const mode_t types[] = {S_IFREG, S_IFDIR, S_IFLNK};
    int fds[3];
    for (int i = 0; i < 3; i++)
        fds[i] = (int)MUST(open(subject_path(names[i]), O_PATH | O_NOFOLLOW));
    MUST(symlink("nowhere", subject_path("removed")));
    int removed = (int)MUST(open(subject_path("removed"), O_PATH | O_NOFOLLOW));
    MUST(unlink(subject_path("removed")));
    subject_wait(NULL);
    char target[32] = "";
    EXPECT(readlinkat(removed, "", target, sizeof target - 1) == 7, "the removed link: %s", strerror(errno));
    EXPECT(strcmp(target, "nowhere") == 0, "the removed link leads to %s", target);
    EXPECT(faccessat(AT_FDCWD, subject_path("removed"), F_OK, AT_SYMLINK_NOFOLLOW), "it has a name again");
    for (int i = 0; i < 3; i++) {
        struct stat st;
        MUST(fstat(fds[i], &st));
        EXPECT((st.st_mode & S_IFMT) == types[i], "%s: type %o", names[i], st.st_mode & S_IFMT);
        EXPECT(fcntl(fds[i], F_GETFL) & O_PATH, "%s: no longer O_PATH", names[i]);
    }
    char byte;
    EXPECT(read(fds[0], &byte, 1) == -1 && errno == EBADF, "an O_PATH descriptor can be read");
    close((int)MUST(openat(fds[1], "new", O_CREAT | O_RDWR, 0600)));
    subject_pass();
}
