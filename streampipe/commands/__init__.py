"""The commands of ``streampipe``, a file each: ``add`` says its arguments, ``run`` does it, and gives a status."""
