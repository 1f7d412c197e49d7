% Has Octave, whose .mat files are MATLAB's, write matlab/NAME.mat: a road and a house above it.
%
%     octave-cli tests/exports/write_matlab.m     (7.3.0; apt-get install octave)

folder = fullfile(fileparts(mfilename("fullpath")), "matlab");
mkdir(folder);
labels = zeros(30, 40);  # double, as MATLAB makes all numbers
labels(4:9, 3:12) = 1;
labels(7:20, 9:30) = 3;
labels(30, 1:40) = 255;  # void
made_by = "a person";
save("-v7", fullfile(folder, "double.mat"), "labels", "made_by");
labels = uint8(labels);
save("-v6", fullfile(folder, "uint8.mat"), "labels", "made_by");
road = labels == 1;
save("-v7", fullfile(folder, "logical.mat"), "road");
GTcls = struct("Segmentation", labels, "Boundaries", {cell(20, 1)}, "CategoriesPresent", [1; 3]);
save("-v7", fullfile(folder, "sbd.mat"), "GTcls");
