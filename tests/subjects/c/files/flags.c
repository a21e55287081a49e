/* Status flags and close-on-exec of every descriptor, at their numbers, also far apart. */
#include "../subject.h"

static const int flags[] = {O_RDONLY,
                            O_RDONLY | O_NONBLOCK,
                            O_RDWR | O_APPEND,
                            O_WRONLY | O_SYNC,
                            O_RDWR | O_DSYNC,
                            O_RDONLY | O_NOATIME,
                            O_RDWR | O_APPEND | O_NONBLOCK | O_ASYNC};
#define COUNT ((int)(sizeof flags / sizeof *flags))
static int number_of(int i) { return 20 + i * i * 5; }
static void spoil(void) { fcntl(number_of(2), F_SETFL, 0), fcntl(number_of(1), F_SETFD, 0); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int before[COUNT];
    close((int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600)));
    for (int i = 0; i < COUNT; i++) {
        int fd = (int)MUST(open(subject_path("file"), flags[i]));
        MUST(dup3(fd, number_of(i), i % 2 ? O_CLOEXEC : 0));
        close(fd);
        before[i] = (int)MUST(fcntl(number_of(i), F_GETFL));
    }
    subject_wait(spoil);
    for (int i = 0; i < COUNT; i++) {
        int now = (int)MUST(fcntl(number_of(i), F_GETFL));
        EXPECT(now == before[i], "descriptor %d: flags %#o instead of %#o", number_of(i), now, before[i]);
        EXPECT(fcntl(number_of(i), F_GETFD) == (i % 2 ? FD_CLOEXEC : 0), "descriptor %d: close-on-exec", number_of(i));
    }
    MUST(pwrite(number_of(0) ? number_of(3) : -1, "12345", 5, 0));
    MUST(write(number_of(2), "67", 2));
    struct stat st;
    MUST(fstat(number_of(2), &st));
    EXPECT(st.st_size == 7, "appending made %ld bytes", (long)st.st_size);
    subject_pass();
}
