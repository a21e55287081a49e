/* A file of root's that was opened before the process became somebody else (privileged to set up). */
#include "../subject.h"
#include <grp.h>
#include <sys/prctl.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", subject_base);
    *strrchr(folder, '/') = 0;
    if (setgroups(0, NULL))
        subject_skip("CAP_SETGID");
    int log = (int)MUST(open(subject_path("log"), O_RDWR | O_CREAT | O_EXCL | O_APPEND, 0600));
    MUST(write(log, "one", 3));
    MUST(chmod(folder, 0777)); /* for the result */
    MUST(chmod(subject_path("ready"), 0666));
    MUST(chmod(subject_path("spoiled"), 0666));
    MUST(setresgid(3001, 3001, 3001));
    MUST(setresuid(2001, 2001, 2001));
    MUST(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    EXPECT(open(subject_path("log"), O_RDONLY) == -1 && errno == EACCES, "set-up: the log can be opened");
    subject_wait(NULL);
    char text[8] = "";
    MUST(write(log, "two", 3));
    EXPECT(pread(log, text, 7, 0) == 6 && strcmp(text, "onetwo") == 0, "the log is '%s'", text);
    EXPECT(open(subject_path("log"), O_RDONLY) == -1 && errno == EACCES, "the log can be opened");
    subject_pass();
}
