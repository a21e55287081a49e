/*
 * A program in a namespace of its own, by argument: mount, with something else in it than outside; or whose next
 * children will be in one, or one of whose threads is; or that has a UTS namespace open which it has made and left; an
 * IPC or network namespace of a child, or one that belongs to a user namespace of its own; an IPC namespace with objects
 * that nobody uses; a network namespace with a route: refused.
 */
#include "../subject.h"
#include <pthread.h>
#include <mqueue.h>
#include <sched.h>
#include <linux/capability.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

static volatile bool apart, end;
static bool powerless;

static void give_up(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};
    if (powerless)
        MUST(syscall(SYS_capset, &header, none));
}

static void *leave(void *argument)
{
    const int *flag = argument;
    if (unshare(*flag))
        subject_skip("namespaces (CAP_SYS_ADMIN)");
    give_up();
    apart = true;
    while (!end)
        subject_tick();
    return NULL;
}

static void make_route(void)
{
    int fd = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
    struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(0x0a090000)}};
    struct sockaddr_in mask = {.sin_family = AF_INET, .sin_addr = {htonl(0xffff0000)}};
    struct rtentry route = {.rt_flags = RTF_UP, .rt_dev = "lo"};
    memcpy(&route.rt_dst, &to, sizeof to);
    memcpy(&route.rt_genmask, &mask, sizeof mask);
    MUST(ioctl(fd, SIOCSIFFLAGS, &up));
    MUST(ioctl(fd, SIOCADDRT, &route));
    close(fd);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static const struct {
        const char *name;
        int flag;
    } all[] = {{"net", CLONE_NEWNET}, {"mnt", CLONE_NEWNS}, {"ipc", CLONE_NEWIPC},
               {"left", CLONE_NEWUTS}, {"pid_of_children", CLONE_NEWPID}, {"time_of_children", CLONE_NEWTIME},
               {"user_net", CLONE_NEWUSER | CLONE_NEWNET}, {"user_ipc", CLONE_NEWUSER | CLONE_NEWIPC}};
    int flag = 0;
    pthread_t thread;
    const char *name = argc > 2 ? argv[2] : "";
    if (strcmp(name, "thread") == 0) {
        int own = argc <= 3 ? CLONE_NEWNET : strcmp(argv[3], "time") == 0 ? CLONE_NEWTIME
                  : strcmp(argv[3], "mnt") == 0                        ? CLONE_NEWNS
                                                                       : CLONE_NEWUTS;
        powerless = argc > 4; /* all of the process has moved, its thread once more, and it can do so no more */
        if (powerless && unshare(CLONE_NEWUTS))
            subject_skip("namespaces (CAP_SYS_ADMIN)");
        MUST0(pthread_create(&thread, NULL, leave, &own));
        while (!apart)
            subject_tick();
        give_up();
        subject_wait(NULL);
        end = true;
        MUST0(pthread_join(thread, NULL));
        subject_pass();
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(name, all[i].name) == 0)
            flag = all[i].flag;
    if (strcmp(name, "left") == 0 && unshare(flag))
        subject_skip("namespaces (CAP_SYS_ADMIN)");
    if (strcmp(name, "left") == 0)
        MUST(open("/proc/self/ns/uts", O_RDONLY));
    pid_t child = argc > 3 && strcmp(argv[3], "child") == 0 ? (pid_t)MUST(fork()) : -1;
    if (child <= 0 && unshare(flag))
        subject_skip("namespaces (CAP_SYS_ADMIN)");
    if (flag == CLONE_NEWNS) {
        MUST(mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL));
        if (strcmp(argv[3], "tmpfs") == 0)
            MUST(mount("of-its-own", "/mnt", "tmpfs", 0, NULL));
        else
            MUST(umount2("/dev/pts", MNT_DETACH));
    }
    if (flag == CLONE_NEWNET && strcmp(argv[3], "route") == 0)
        make_route();
    if (flag == CLONE_NEWIPC && strcmp(argv[3], "segment") == 0)
        MUST(shmget(IPC_PRIVATE, 4096, 0600));
    if (flag == CLONE_NEWIPC && strcmp(argv[3], "queue") == 0)
        MUST(close((int)MUST(mq_open("/of-nobody", O_RDWR | O_CREAT, 0600, NULL))));
    if (child == 0)
        while (getppid() == subject_root)
            subject_tick();
    subject_wait(NULL);
    subject_pass();
}
