/* A lock of the open file description. */
#include "../subject.h"

static int fd;
static void spoil(void)
{
    struct flock all = {.l_type = F_UNLCK};
    fcntl(fd, F_OFD_SETLK, &all);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    fd = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    struct flock lock = {.l_type = F_WRLCK, .l_start = 10, .l_len = 20};
    MUST(fcntl(fd, F_OFD_SETLK, &lock));
    subject_wait(spoil);
    int other = (int)MUST(open(subject_path("file"), O_RDWR));
    struct flock ask = {.l_type = F_RDLCK, .l_start = 29, .l_len = 1};
    EXPECT(fcntl(other, F_OFD_SETLK, &ask) == -1 && errno == EAGAIN, "the lock is gone");
    ask.l_start = 30, ask.l_pid = 0;
    MUST(fcntl(other, F_OFD_SETLK, &ask));
    subject_pass();
}
