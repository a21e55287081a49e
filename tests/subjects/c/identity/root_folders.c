/* A child with a root folder of its own below another one: its working folder outside, and what it has open (privileged). */
#include "../subject.h"
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static int asked[2], told[2];
static char outside[PATH_MAX];

#define SAY(condition, number)                                                                                        \
    if (!(condition))                                                                                                 \
    _exit(number)

static void child(const char *folder)
{
    char told_of[512], here[PATH_MAX];
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "named"};
    close(asked[1]);
    SAY(chroot(folder) == 0 && chdir("/") == 0, 10);
    int file = open("/file", O_RDWR | O_CREAT, 0600), watch = inotify_init1(IN_NONBLOCK);
    SAY(write(file, "inside", 7) == 7, 11);
    char *view = mmap(NULL, 7, PROT_READ, MAP_SHARED, file, 0);
    SAY(view != MAP_FAILED && inotify_add_watch(watch, "/", IN_CREATE) >= 0, 12);
    int server = socket(AF_UNIX, SOCK_DGRAM, 0), client = socket(AF_UNIX, SOCK_DGRAM, 0);
    SAY(bind(server, (void *)&name, sizeof name) == 0 && read(watch, told_of, sizeof told_of) > 0, 13);
    SAY(write(told[1], "", 1) == 1, 14);
    if (read(asked[0], told_of, 1) != 1)
        _exit(0);
    SAY(strcmp(view, "inside") == 0 && pread(file, told_of, 7, 0) == 7, 15);
    SAY(access("/file", F_OK) == 0 && access("/proc", F_OK) == -1 && access(outside, F_OK) == -1, 16);
    SAY(getcwd(here, sizeof here) && strcmp(here, "/") == 0, 17);
    SAY(connect(client, (void *)&name, sizeof name) == 0 && write(client, "x", 1) == 1, 18);
    SAY(read(server, told_of, 1) == 1, 19);
    SAY(open("/created", O_WRONLY | O_CREAT, 0600) >= 0 && read(watch, told_of, sizeof told_of) > 0, 20);
    unlink("/created");
    _exit(77);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char folder[PATH_MAX], below[PATH_MAX], inside[PATH_MAX], *name, byte;
    snprintf(folder, sizeof folder, "%s", subject_base);
    name = strrchr(folder, '/');
    *name = 0;
    snprintf(inside, sizeof inside, "/%s", name + 1);
    snprintf(outside, sizeof outside, "%s", folder);
    if (chroot(folder))
        subject_skip("CAP_SYS_CHROOT");
    subject_begin(2, (char *[]){argv[0], inside});
    MUST(chdir(".."));
    snprintf(below, sizeof below, "%s", subject_path("below"));
    MUST(mkdir(below, 0700));
    MUST(pipe(asked));
    MUST(pipe(told));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0)
        child(below);
    MUST(read(told[0], &byte, 1));
    struct stat before, after;
    MUST(stat(".", &before));
    subject_wait(NULL);
    MUST(stat(".", &after));
    EXPECT(before.st_ino == after.st_ino && before.st_dev == after.st_dev, "the working folder is another one");
    EXPECT(access(subject_path("below"), F_OK) == 0, "the root folder is another one");
    int status;
    MUST(write(asked[1], "", 1));
    MUST(wait(&status));
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 77, "the child: %#x", status);
    subject_pass();
}
