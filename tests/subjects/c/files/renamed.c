/* Files that were renamed, or whose folder was, after they were opened; one whose folder is gone. */
#include "../subject.h"

static int make(const char *folder, const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", subject_path(folder), name);
    int fd = (int)MUST(open(path, O_RDWR | O_CREAT | O_EXCL, 0600));
    MUST(write(fd, name, strlen(name)));
    return fd;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static const char *folders[] = {"plain", "moved", "gone"};
    for (int i = 0; i < 3; i++)
        MUST(mkdir(subject_path(folders[i]), 0700));
    int fds[3] = {make("plain", "one"), make("moved", "two"), make("gone", "three")};
    char from[PATH_MAX], to[PATH_MAX];
    snprintf(from, sizeof from, "%s/one", subject_path("plain"));
    snprintf(to, sizeof to, "%s/uno", subject_path("plain"));
    MUST(rename(from, to));
    MUST(rename(subject_path("moved"), subject_path("elsewhere")));
    snprintf(from, sizeof from, "%s/three", subject_path("gone"));
    MUST(unlink(from));
    MUST(rmdir(subject_path("gone")));
    subject_wait(NULL);
    static const char *wanted[] = {"one", "two", "three"};
    for (int i = 0; i < 3; i++) {
        char text[20] = "";
        EXPECT(pread(fds[i], text, sizeof text, 0) == (ssize_t)strlen(wanted[i]) && !strcmp(text, wanted[i]),
               "file %s holds '%s'", wanted[i], text);
        EXPECT(lseek(fds[i], 0, SEEK_CUR) == (off_t)strlen(wanted[i]), "file %s: the offset", wanted[i]);
    }
    struct stat open_one, named;
    MUST(fstat(fds[0], &open_one));
    MUST(stat(to, &named));
    EXPECT(open_one.st_ino == named.st_ino, "the renamed file is a copy");
    MUST(fstat(fds[2], &open_one));
    EXPECT(open_one.st_nlink == 0, "the file of the folder that is gone has a name");
    EXPECT(access(subject_path("gone"), F_OK) == -1, "the folder is back");
    subject_pass();
}
