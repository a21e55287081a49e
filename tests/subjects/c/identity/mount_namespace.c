/*
 * A mount namespace in which the same is mounted as outside, with mounts that tell nobody and one that would hear of
 * others. By argument: child: a child's, while another child stays outside; user: with a user namespace, to which it
 * belongs (else it is privileged).
 */
#include "../trees/tree.h"
#include <sched.h>
#include <sys/mount.h>

static const char *what;
static int ready[2];

static ino_t number_of(const char *path)
{
    struct stat found;
    return stat(path, &found) ? 0 : found.st_ino;
}

static bool is_as_parent(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)getppid());
    return number_of(path) == number_of("/proc/self/ns/mnt");
}

/* What mountinfo(5) says of a mount between its options and the dash. */
static bool is_tagged(const char *path, const char *tag)
{
    char line[4096], found[4096] = "";
    FILE *file = fopen("/proc/self/mountinfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        char at[1024];
        if (sscanf(line, "%*s %*s %*s %*s %1023s", at) == 1 && strcmp(at, path) == 0) {
            char *dash = strstr(line, " - ");
            *dash = 0;
            strcpy(found, line);
        }
    }
    fclose(file);
    return strstr(found, tag) != NULL;
}

static bool is_right(void)
{
    return is_tagged("/", "shared:") && !is_tagged("/sys", "shared:") && !is_tagged("/sys", "master:");
}

static void write_to(const char *path, const char *text)
{
    int fd = (int)MUST(open(path, O_WRONLY));
    MUST(write(fd, text, strlen(text)));
    close(fd);
}

static void begin_one(void)
{
    char text[64];
    uid_t user = geteuid();
    gid_t group = getegid();
    bool own = strcmp(what, "user") == 0;
    if (unshare(CLONE_NEWNS | (own ? CLONE_NEWUSER : 0)))
        subject_skip("mount namespaces (CAP_SYS_ADMIN)");
    if (own) {
        snprintf(text, sizeof text, "0 %d 1", (int)user);
        write_to("/proc/self/setgroups", "deny");
        write_to("/proc/self/uid_map", text);
        snprintf(text, sizeof text, "0 %d 1", (int)group);
        write_to("/proc/self/gid_map", text);
    }
    MUST(mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL));
    MUST(mount(NULL, "/", NULL, MS_SHARED, NULL));
}

static int stays(int told, void *argument)
{
    child_wait(told);
    return argument == NULL && is_as_parent() ? 3 : 4;
}

static int inside(int told, void *argument)
{
    bool begins = argument == NULL;
    struct child below = {0};
    if (begins) {
        begin_one();
        below = child_start(inside, &below);
    }
    MUST(write(ready[1], "x", 1));
    child_wait(told);
    EXPECT(is_right(), "%s: mounts tell others", begins ? "a child" : "a grandchild");
    EXPECT(is_as_parent() == !begins, "%s is elsewhere", begins ? "a child" : "a grandchild");
    if (begins) {
        child_tell(below);
        child_expect_exit(below, 3, "the grandchild");
    }
    return 3;
}

/* What is mounted is seen there, and nowhere else. */
static void use(void)
{
    char folder[PATH_MAX], file[PATH_MAX + 2];
    snprintf(folder, sizeof folder, "%s", subject_path("folder"));
    snprintf(file, sizeof file, "%s/x", folder);
    MUST(mkdir(folder, 0700));
    MUST(mount("of-its-own", folder, "tmpfs", 0, NULL));
    MUST(close((int)MUST(open(file, O_CREAT | O_WRONLY, 0600))));
    MUST(umount(folder));
    MUST(rmdir(folder));
}

int main(int argc, char **argv)
{
    char byte;
    subject_begin(argc, argv);
    what = argc > 2 ? argv[2] : "";
    if (strcmp(what, "child") == 0) {
        MUST(pipe(ready));
        struct child other = child_start(stays, NULL), child = child_start(inside, NULL);
        for (int i = 0; i < 2; i++)
            MUST(read(ready[0], &byte, 1));
        subject_wait(NULL);
        child_tell(other);
        child_tell(child);
        child_expect_exit(other, 3, "the child outside");
        child_expect_exit(child, 3, "the child inside");
        subject_pass();
    }
    ino_t outside = number_of("/proc/self/ns/mnt");
    begin_one();
    use();
    subject_wait(NULL);
    EXPECT(number_of("/proc/self/ns/mnt") != outside, "it is outside");
    EXPECT(is_right(), "mounts tell others");
    use();
    subject_pass();
}
