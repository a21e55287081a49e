/* A terminal in which more waits than a side can show, with a writer that is blocked; and one with ends of files typed. */
#include "../subject.h"
#include <pthread.h>
#include <termios.h>

#define TYPED "one\ntwo\n\004with no newline\004part"
#define PRINTED 60000

static int sides[2][2];

static void open_terminal(int *pair, bool raw)
{
    char name[64];
    struct termios mode;
    pair[0] = (int)MUST(posix_openpt(O_RDWR | O_NOCTTY));
    MUST(grantpt(pair[0]) || unlockpt(pair[0]) || ptsname_r(pair[0], name, sizeof name) ? -1 : 0);
    pair[1] = (int)MUST(open(name, O_RDWR | O_NOCTTY));
    MUST(tcgetattr(pair[1], &mode));
    mode.c_lflag &= (tcflag_t)~ECHO;
    if (raw)
        cfmakeraw(&mode);
    MUST(tcsetattr(pair[1], TCSANOW, &mode));
}

static void *printing(void *arg)
{
    static char text[PRINTED];
    subject_fill(text, sizeof text, 1);
    for (size_t done = 0; done < sizeof text;)
        done += (size_t)MUST(write(sides[0][1], text + done, sizeof text - done));
    return arg;
}

static void expect_line(const char *wanted)
{
    char line[64];
    ssize_t got = MUST(read(sides[1][1], line, sizeof line));
    EXPECT(got == (ssize_t)strlen(wanted) && memcmp(line, wanted, (size_t)got) == 0, "%zd bytes, not '%s'", got, wanted);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static char found[PRINTED];
    pthread_t thread;
    open_terminal(sides[0], true);
    open_terminal(sides[1], false);
    MUST0(pthread_create(&thread, NULL, printing, NULL));
    MUST(write(sides[1][0], TYPED, strlen(TYPED)));
    subject_all_asleep(1);
    subject_wait(NULL);
    for (size_t got = 0; got < sizeof found;)
        got += (size_t)MUST(read(sides[0][0], found + got, sizeof found - got));
    MUST0(pthread_join(thread, NULL));
    EXPECT_FILLED(found, sizeof found, 1, "what was printed");
    expect_line("one\n");
    expect_line("two\n");
    expect_line("");
    expect_line("with no newline");
    MUST(write(sides[1][0], "ial\n", 4));
    expect_line("partial\n");
    subject_pass();
}
