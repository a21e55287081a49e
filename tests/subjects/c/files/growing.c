/* A log that is appended to: what is written afterwards stands behind what was written before. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int log = (int)MUST(open(subject_path("log"), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_SYNC, 0600));
    int plain = (int)MUST(open(subject_path("plain"), O_WRONLY | O_CREAT | O_EXCL, 0200)); /* may not be read */
    MUST(write(log, "before ", 7));
    MUST(write(plain, "before ", 7));
    subject_wait(NULL);
    MUST(write(log, "after", 5));
    MUST(write(plain, "after", 5));
    MUST(chmod(subject_path("plain"), 0600));
    static const char *names[] = {"log", "plain"};
    for (int i = 0; i < 2; i++) {
        char text[40] = "";
        int fd = (int)MUST(open(subject_path(names[i]), O_RDONLY));
        MUST(read(fd, text, sizeof text - 1));
        EXPECT(strcmp(text, "before after") == 0, "the %s file says '%s'", names[i], text);
    }
    EXPECT(fcntl(log, F_GETFL) & O_SYNC, "O_SYNC is lost");
    subject_pass();
}
