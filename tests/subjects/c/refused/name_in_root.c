/* A Unix socket whose name only a process in the same root folder can give (privileged): refused by name. */
#include "../subject.h"
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char inside[PATH_MAX], folder[PATH_MAX], *name;
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(folder, sizeof folder, "%s", subject_base);
    name = strrchr(folder, '/');
    *name = 0;
    snprintf(inside, sizeof inside, "/%s", name + 1);
    if (chroot(folder))
        subject_skip("CAP_SYS_CHROOT");
    subject_begin(2, (char *[]){argv[0], inside});
    snprintf(at.sun_path, sizeof at.sun_path, "%s", "/socket");
    int s = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(bind(s, (void *)&at, sizeof at));
    subject_wait(NULL);
    unlink("/socket");
    subject_pass();
}
