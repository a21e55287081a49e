/* Files open for writing, under the policy that the test asks for: what was written since the dump is undone, or kept. */
#include "../subject.h"

static int log_fd, data_fd, taken_fd;

static void write_on(void)
{
    MUST(write(log_fd, "later\n", 6));
    MUST(pwrite(data_fd, "LATER", 5, 0));
    MUST(ftruncate(data_fd, 5));
    MUST(unlink(subject_path("taken")));
}

static int whole(const char *name, char *text, size_t room)
{
    int fd = open(subject_path(name), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t got = read(fd, text, room - 1);
    close(fd);
    text[got < 0 ? 0 : got] = 0;
    return 0;
}

static void expect(const char *name, const char *wanted)
{
    char text[100];
    EXPECT(whole(name, text, sizeof text) == 0, "%s is gone", name);
    EXPECT(strcmp(text, wanted) == 0, "%s holds '%s', not '%s'", name, text, wanted);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *policy = argc > 2 ? argv[2] : "";
    log_fd = (int)MUST(open(subject_path("log"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    data_fd = (int)MUST(open(subject_path("data"), O_RDWR | O_CREAT | O_CLOEXEC, 0640));
    taken_fd = (int)MUST(open(subject_path("taken"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    MUST(write(log_fd, "early\n", 6));
    MUST(write(data_fd, "0123456789", 10));
    MUST(write(taken_fd, "there", 5));
    subject_wait(write_on);
    if (strcmp(policy, "rewind") == 0) {
        expect("log", "early\n"); /* it had only grown */
        expect("data", "LATER");
    } else if (strcmp(policy, "save") == 0) {
        expect("log", "early\n");
        expect("data", "0123456789");
        expect("taken", "there");
    } else if (strcmp(policy, "keep") == 0) {
        expect("log", "early\nlater\n");
    }
    MUST(write(log_fd, "on\n", 3));
    MUST(write(data_fd, "!", 1));
    EXPECT(lseek(data_fd, 0, SEEK_CUR) == 11, "the offset is %ld", (long)lseek(data_fd, 0, SEEK_CUR));
    if (*policy)
        expect("log", strcmp(policy, "keep") == 0 ? "early\nlater\non\n" : "early\non\n");
    subject_pass();
}
