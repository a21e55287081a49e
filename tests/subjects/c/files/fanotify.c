/* A fanotify group: refused by name. */
#include "../subject.h"
#include <sys/fanotify.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = fanotify_init(FAN_CLASS_NOTIF, O_RDONLY);
    if (fd < 0)
        subject_skip("fanotify (CAP_SYS_ADMIN)");
    subject_wait(NULL);
    subject_pass();
}
