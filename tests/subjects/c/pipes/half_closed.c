/* Pipes with one end closed: what is left and then end of file; EPIPE for the other. */
#include "../subject.h"
#include <signal.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    int no_writer[2], no_reader[2];
    char text[20] = "";
    MUST(pipe(no_writer));
    MUST(write(no_writer[1], "the rest", 8));
    MUST(close(no_writer[1]));
    MUST(pipe(no_reader));
    MUST(close(no_reader[0]));
    subject_wait(NULL);
    EXPECT(read(no_writer[0], text, sizeof text) == 8 && !strcmp(text, "the rest"), "'%s' is left", text);
    EXPECT(read(no_writer[0], text, sizeof text) == 0, "no end of file");
    EXPECT(write(no_reader[1], "x", 1) == -1 && errno == EPIPE, "somebody reads it");
    subject_pass();
}
