/* A named FIFO: content, both ends, the name. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char text[40] = "";
    MUST(mkfifo(subject_path("fifo"), 0600));
    int reader = (int)MUST(open(subject_path("fifo"), O_RDONLY | O_NONBLOCK));
    int writer = (int)MUST(open(subject_path("fifo"), O_WRONLY));
    MUST(write(writer, "in the fifo", 11));
    subject_wait(NULL);
    EXPECT(read(reader, text, sizeof text) == 11 && !strcmp(text, "in the fifo"), "it holds '%s'", text);
    int second = (int)MUST(open(subject_path("fifo"), O_WRONLY | O_NONBLOCK));
    MUST(write(second, "by name", 7));
    EXPECT(read(reader, text, sizeof text) == 7, "writing by name does not reach the reader");
    MUST(close(second));
    MUST(close(writer));
    EXPECT(read(reader, text, sizeof text) == 0, "no end of file although all writers are gone");
    subject_pass();
}
