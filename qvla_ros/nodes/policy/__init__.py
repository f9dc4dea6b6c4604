"""The policy node: sensors and an instruction in, action chunks and robot commands out."""
