/*
 * Threads with a descriptor table, or a working folder and umask, of their own (unshare), by argument: with files, a
 * pipe, an epoll and a record lock that only one of them has, one in a folder that has been removed, and one in another
 * root folder.
 */
#include "../subject.h"
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

struct own {
    pthread_t thread;
    int which, file, lock, pipe[2], epoll, comm, pidfd;
    volatile bool ready;
};

static int flags = CLONE_FILES | CLONE_FS;
static bool jailed;
static volatile bool spoiled, end;
static int common;
static ino_t main_folder, main_root;

static ino_t inode_of(const char *path)
{
    struct stat found;
    MUST(stat(path, &found));
    return found.st_ino;
}

static const char *name(const char *what, int which)
{
    char suffix[32];
    snprintf(suffix, sizeof suffix, "%s%d", what, which);
    return subject_path(suffix);
}

static void set_descriptors(struct own *own)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = own->which, .l_len = 5};
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 77};
    MUST(close(common));
    own->file = (int)MUST(open(name("file", own->which), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    MUST(write(own->file, "0123456789", 10));
    MUST(lseek(own->file, 3 + own->which, SEEK_SET));
    MUST(fcntl(own->file, F_SETLK, &lock));
    MUST(pipe(own->pipe));
    MUST(dup2(own->pipe[1], 300));
    own->epoll = (int)MUST(epoll_create1(0));
    MUST(epoll_ctl(own->epoll, EPOLL_CTL_ADD, own->pipe[0], &event));
    /* what can be opened by the process itself only, and the leader has something else at these numbers, or nothing */
    own->comm = (int)MUST(open("/proc/self/comm", O_RDWR));
    own->pidfd = (int)MUST(syscall(SYS_pidfd_open, getpid(), 0));
    MUST(epoll_ctl(own->epoll, EPOLL_CTL_ADD, own->pidfd, &event));
}

static void check_descriptors(const struct own *own)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct epoll_event event;
    struct stat found, other;
    char byte;
    MUST(fstat(own->file, &found));
    char comm[32] = "", fdinfo[64], line[64];
    EXPECT(pread(own->comm, comm, sizeof comm - 1, 0) > 0 && strncmp(comm, "threads_own", 11) == 0, "comm: %s", comm);
    snprintf(fdinfo, sizeof fdinfo, "/proc/thread-self/fdinfo/%d", own->pidfd);
    FILE *about = fopen(fdinfo, "r");
    bool is_ours = false;
    while (about && fgets(line, sizeof line, about))
        is_ours |= sscanf(line, "Pid: %d", &(int){0}) == 1 && atoi(line + 5) == getpid();
    EXPECT(is_ours, "the pidfd of thread %d", own->which);
    fclose(about);
    EXPECT(found.st_ino == inode_of(name("file", own->which)), "thread %d has another file", own->which);
    EXPECT(lseek(own->file, 0, SEEK_CUR) == 3 + own->which, "the offset of thread %d", own->which);
    EXPECT(fcntl(own->file, F_GETFD) == FD_CLOEXEC, "close-on-exec of thread %d", own->which);
    int again = (int)MUST(open(name("file", own->which), O_RDWR));
    MUST(fcntl(again, F_OFD_GETLK, &lock));
    EXPECT(lock.l_type == F_WRLCK && lock.l_start == own->which && lock.l_len == 5, "the lock of thread %d", own->which);
    EXPECT(lock.l_pid == getpid(), "the lock of thread %d is that of %d", own->which, (int)lock.l_pid);
    EXPECT(epoll_wait(own->epoll, &event, 1, 0) == 0, "thread %d is told of nothing", own->which);
    MUST(write(300, "x", 1));
    EXPECT(epoll_wait(own->epoll, &event, 1, 5000) == 1 && event.data.u64 == 77, "thread %d is not told", own->which);
    EXPECT(read(own->pipe[0], &byte, 1) == 1 && byte == 'x', "the pipe of thread %d", own->which);
    /* what the leader has at that number is another file, which it opened after they had parted */
    EXPECT(fstat(common, &other) == 0 && other.st_ino == found.st_ino, "thread %d has the leader's table", own->which);
}

static void *run(void *argument)
{
    struct own *own = argument;
    MUST(unshare(flags));
    if (flags & CLONE_FILES)
        set_descriptors(own);
    if (flags & CLONE_FS) {
        MUST(mkdir(name("folder", own->which), 0700));
        MUST(chdir(name("folder", own->which)));
        if (own->which)
            MUST(rmdir(name("folder", own->which)));
        else if (jailed)
            MUST(chroot("."));
        umask((mode_t)(020 + own->which));
    }
    own->ready = true;
    for (bool done = false; !end; subject_tick()) {
        if (spoiled && !done) {
            done = true;
            if (flags & CLONE_FS)
                MUST(chdir("/"));
            if (flags & CLONE_FILES)
                MUST(dup2(own->pipe[0], own->file));
            own->ready = false;
        }
    }
    if (flags & CLONE_FILES)
        check_descriptors(own);
    if (flags & CLONE_FS) {
        char here[PATH_MAX];
        EXPECT(umask(0) == (mode_t)(020 + own->which), "the umask of thread %d", own->which);
        if (own->which)
            EXPECT(getcwd(here, sizeof here) == NULL && errno == ENOENT, "thread %d is in %s", own->which, here);
        else
            EXPECT(inode_of(".") == inode_of(jailed ? "/" : name("folder", 0)), "thread 0 is in another folder");
        EXPECT((inode_of("/") == main_root) == (own->which || !jailed), "the root folder of thread %d", own->which);
    }
    return NULL;
}

static struct own own[2];

static void spoil(void)
{
    spoiled = true;
    while (own[0].ready || own[1].ready)
        subject_tick();
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (argc > 2)
        flags = strcmp(argv[2], "descriptors") == 0 ? CLONE_FILES : CLONE_FS;
    jailed = argc > 2 && strcmp(argv[2], "root") == 0;
    main_root = inode_of("/");
    umask(022);
    common = (int)MUST(open("/dev/null", O_RDONLY));
    for (int i = 0; i < 2; i++) {
        own[i].which = i;
        MUST0(pthread_create(&own[i].thread, NULL, run, &own[i]));
        while (!own[i].ready)
            subject_tick();
    }
    main_folder = inode_of(".");
    close(common);
    int mine = (int)MUST(open(subject_path("mine"), O_RDWR | O_CREAT, 0600));
    EXPECT(mine == common, "numbers: %d and %d", mine, common);
    subject_wait(spoil);
    struct stat found;
    EXPECT(fstat(mine, &found) == 0 && found.st_ino == inode_of(subject_path("mine")), "the leader's file");
    EXPECT(fcntl(300, F_GETFD) == -1 && errno == EBADF, "the leader has descriptors of a thread");
    EXPECT(inode_of(".") == main_folder && inode_of("/") == main_root && umask(0) == 022, "the leader's folders");
    end = true;
    for (int i = 0; i < 2; i++)
        MUST0(pthread_join(own[i].thread, NULL));
    subject_pass();
}
