/* `mxcc plan`: the memory planner alone. */
#ifndef MXCC_DRIVER_PLAN_COMMAND_H
#define MXCC_DRIVER_PLAN_COMMAND_H

/* argv[0] is the command's name, then its arguments. The exit status: 0, 1 (input), 2 (usage). */
int plan_command(int argc, char **argv);

#endif
