/* Open folders in the middle of being listed, and listed to the end (then begun anew); openat below one. */
#include "../subject.h"
#include <dirent.h>

#define COUNT 500

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(mkdir(subject_path("folder"), 0700));
    int fd = (int)MUST(open(subject_path("folder"), O_RDONLY | O_DIRECTORY));
    for (int i = 0; i < COUNT; i++) {
        char name[300];
        snprintf(name, sizeof name, "%0200d", i);
        close((int)MUST(openat(fd, name, O_CREAT | O_WRONLY, 0600)));
    }
    static bool seen[COUNT];
    DIR *dir = opendir(subject_path("folder"));
    struct dirent *entry;
    for (int i = 0; i < 250 && (entry = readdir(dir)); i++)
        if (entry->d_name[0] != '.')
            seen[atoi(entry->d_name)] = true;
    DIR *whole = opendir(subject_path("folder"));
    int listed = 0, again = 0;
    while (readdir(whole))
        listed++;
    subject_wait(NULL);
    EXPECT(!readdir(whole), "the end is not the end");
    rewinddir(whole);
    while (readdir(whole))
        again++;
    EXPECT(again == listed, "%d of %d entries when begun anew", again, listed);
    while ((entry = readdir(dir)))
        if (entry->d_name[0] != '.') {
            EXPECT(!seen[atoi(entry->d_name)], "entry %d comes twice", atoi(entry->d_name));
            seen[atoi(entry->d_name)] = true;
        }
    for (int i = 0; i < COUNT; i++)
        EXPECT(seen[i], "entry %d never comes", i);
    close((int)MUST(openat(fd, "new", O_CREAT | O_EXCL | O_WRONLY, 0600)));
    subject_pass();
}
