/* A fanotify group that decides who may open a file: refused before it is stopped. */
#include "../subject.h"
#include <sys/fanotify.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = fanotify_init(FAN_CLASS_CONTENT, O_RDONLY);
    if (fd < 0)
        subject_skip("fanotify (CAP_SYS_ADMIN)");
    MUST(close(MUST(open(subject_path("guarded"), O_CREAT | O_WRONLY, 0600))));
    MUST(fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD, subject_path("guarded")));
    subject_wait(NULL);
    subject_pass();
}
