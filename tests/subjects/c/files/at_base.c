/* Folders as the base of relative names: a normal one, an O_PATH one, one that was removed; one seen by a symlink. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(mkdir(subject_path("folder"), 0700));
    MUST(mkdir(subject_path("gone"), 0700));
    MUST(symlink(subject_path("folder"), subject_path("link")));
    int plain = (int)MUST(open(subject_path("folder"), O_RDONLY | O_DIRECTORY));
    int path_only = (int)MUST(open(subject_path("folder"), O_PATH | O_DIRECTORY));
    int by_link = (int)MUST(open(subject_path("link"), O_RDONLY | O_DIRECTORY));
    int gone = (int)MUST(open(subject_path("gone"), O_RDONLY | O_DIRECTORY));
    MUST(rmdir(subject_path("gone")));
    close((int)MUST(openat(plain, "file", O_CREAT | O_EXCL | O_WRONLY, 0600)));
    subject_wait(NULL);
    struct stat st;
    MUST(fstatat(path_only, "file", &st, 0));
    MUST(fstatat(by_link, "file", &st, 0));
    MUST(fstat(gone, &st));
    EXPECT(S_ISDIR(st.st_mode) && st.st_nlink == 0, "the removed folder has %d links", (int)st.st_nlink);
    EXPECT(openat(gone, "file", O_CREAT | O_WRONLY, 0600) == -1 && errno == ENOENT, "it takes a new file");
    MUST(unlinkat(plain, "file", 0));
    EXPECT(fstatat(path_only, "file", &st, 0) == -1, "the bases lead to different folders");
    subject_pass();
}
