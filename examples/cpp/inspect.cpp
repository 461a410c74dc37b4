// Inspects images with a model that `blemish export` wrote:  inspect EXPORTED IMAGE...
// EXPORTED/README.md has the steps that this program takes. It is for models of one network, of whole images in 8 or 16
// bits (PGM or PPM), whatever their score, and refuses others. It prints a line of JSON for each image.
#include <openvino/openvino.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <map>
#include <regex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using Settings = std::map<std::string, std::string>;
struct Image { size_t channels, height, width; std::vector<double> values; };  // channel by channel, row by row
using Weights = std::vector<std::vector<std::pair<size_t, double>>>;           // of old pixels, for each new one

void require(bool holds, const std::string& problem) { if (!holds) throw std::runtime_error(problem); }

Settings read_settings(const std::string& path) {
    std::ifstream file(path);
    require(file.good(), path + ": cannot be read; export the model with this version of Blemish");
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const std::regex entry("\"(\\w+)\":\\s*(?:\"([^\"]*)\"|([^,\\s}]+))");  // one level, so this is enough
    Settings found;
    for (std::sregex_iterator one(text.begin(), text.end(), entry), end; one != end; ++one)
        found[(*one)[1]] = (*one)[2].matched ? (*one)[2] : (*one)[3];
    require(found["format"] == "1" && found["subject"] == "images" && found["combination"] == "none" &&
                found.count("graph") && found["pose"] == "false" && found["area"] == "false" &&
                found["pixel_type"] != "float32" && found.count("threshold"),
            path + ": this program is for calibrated models of one network on whole images of 8 or 16 bits");
    return found;
}

Image read_image(const std::string& path, const Settings& settings) {
    std::ifstream file(path, std::ios::binary);
    std::string words[4];  // P5 or P6, width, height, largest value
    for (auto& word : words)
        while (file >> word && word[0] == '#') std::getline(file, word);  // a comment
    file.get();
    require(file.good() && (words[0] == "P5" || words[0] == "P6"), path + ": is no PGM or PPM with binary values");
    require(words[3] == settings.at("full_scale"), path + ": has another depth than the images of the model");
    const bool is_deep = words[3] == "65535";
    Image image{words[0] == "P6" ? 3u : 1u, std::stoul(words[2]), std::stoul(words[1]), {}};
    require(image.channels == std::stoul(settings.at("channels")), path + ": has another number of channels than the model");
    const size_t pixels = image.height * image.width;
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    require(pixels > 0 && bytes.size() >= pixels * image.channels * (is_deep ? 2 : 1), path + ": ends early");
    const auto* raw = reinterpret_cast<const unsigned char*>(bytes.data());
    image.values.resize(image.channels * pixels);
    for (size_t i = 0; i < image.values.size(); ++i)  // from pixel by pixel to channel by channel
        image.values[i % image.channels * pixels + i / image.channels] = is_deep ? 256 * raw[2 * i] + raw[2 * i + 1] : raw[i];
    return image;
}

// Values (outer, of, inner) with the axis in the middle weighted.
std::vector<double> weighted(const std::vector<double>& values, size_t outer, size_t of, size_t inner, const Weights& weights) {
    std::vector<double> made(outer * weights.size() * inner, 0.0);
    for (size_t o = 0; o < outer; ++o)
        for (size_t n = 0; n < weights.size(); ++n)
            for (const auto& [old, weight] : weights[n])
                for (size_t i = 0; i < inner; ++i)
                    made[(o * weights.size() + n) * inner + i] += weight * values[(o * of + old) * inner + i];
    return made;
}

Weights resampling(size_t of, size_t to) {
    const double scale = double(of) / double(to), reach = std::max(1.0, scale);
    Weights weights(to);
    for (size_t n = 0; n < to; ++n) {
        double sum = 0;
        for (size_t old = 0; old < of; ++old)
            if (const double w = 1 - std::abs(old + 0.5 - (n + 0.5) * scale) / reach; w > 0) {
                weights[n].emplace_back(old, w);
                sum += w;
            }
        for (auto& one : weights[n]) one.second /= sum;
    }
    return weights;
}

Weights gaussian(size_t length, double sigma) {
    const long reach = long(4 * sigma + 0.5), n = long(length);
    double sum = 0;
    for (long x = -reach; x <= reach; ++x) sum += std::exp(-0.5 * x * x / (sigma * sigma));
    Weights weights(length);
    for (long i = 0; i < n; ++i)
        for (long x = -reach; x <= reach; ++x) {
            const long at = ((i + x) % (2 * n) + 2 * n) % (2 * n);  // mirrored with the edge, on and on
            weights[i].emplace_back(size_t(std::min(at, 2 * n - 1 - at)), std::exp(-0.5 * x * x / (sigma * sigma)) / sum);
        }
    return weights;
}

// The first figure by which an image, in values of its file, is of another kind than the good ones; empty without one.
std::string other_kind(const Image& image, const Settings& settings) {
    const size_t step = (image.height + 255) / 256, area = image.height * image.width;
    double count = 0, sum = 0, squares = 0, edges = 0, colour = 0;
    for (size_t row = 0; row < image.height; row += step) {
        double before = 0;
        for (size_t column = 0; column < image.width; ++column, ++count) {
            double grey = 0, low = 1, high = 0;
            for (size_t c = 0; c < image.channels; ++c) {
                const double value = image.values[c * area + row * image.width + column] / std::stod(settings.at("full_scale"));
                grey += value / image.channels, low = std::min(low, value), high = std::max(high, value);
            }
            sum += grey, squares += grey * grey, colour += high - low;
            edges += column ? std::abs(grey - before) : 0;
            before = grey;
        }
    }
    const double mean = sum / count, neighbours = std::max(1.0, count - count / image.width);
    const std::map<std::string, double> figures{
        {"brightness", mean}, {"contrast", std::sqrt(std::max(0.0, squares / count - mean * mean))},
        {"sharpness", edges / neighbours}, {"colour", colour / count},
        {"width", double(image.width)}, {"height", double(image.height)}};
    for (const auto& [name, value] : figures)
        if (settings.count("least_" + name) &&
            (value < std::stod(settings.at("least_" + name)) || value > std::stod(settings.at("most_" + name))))
            return name;
    return "";
}

void preprocess(Image& image, const Settings& settings, const std::string& path) {
    const double full = std::stod(settings.at("full_scale")), range = std::stod(settings.at("range"));
    require(*std::max_element(image.values.begin(), image.values.end()) <= range, path + ": has values above the range");
    for (auto& value : image.values)
        value = (range == full ? value : std::trunc(std::min(float(value) * float(full / range), float(full)))) / full;
    const std::string& resize = settings.at("resize");
    if (resize == "none") return;
    const bool is_common = resize == "factor";
    const double least = is_common ? 1 : std::stod(settings.at("resize_side"));
    const double factor = is_common ? std::stod(settings.at("resize_factor")) : least / std::min(image.height, image.width);
    // nearbyint rounds a half to the even number.
    const size_t height = size_t(std::max(least, std::nearbyint(factor * image.height)));
    const size_t width = size_t(std::max(least, std::nearbyint(factor * image.width)));
    auto rows = weighted(image.values, image.channels * image.height, image.width, 1, resampling(image.width, width));
    image = {image.channels, height, width, weighted(rows, image.channels, image.height, width, resampling(image.height, height))};
}

// Anomaly map (height, width) of a preprocessed image, blended from its tiles.
std::vector<double> anomaly_map(const Image& image, ov::InferRequest& network, const Settings& settings) {
    const long tile = std::stol(settings.at("tile")), stride = std::stol(settings.at("tile_stride"));
    const long sides[] = {long(image.height), long(image.width)};
    require(std::min(sides[0], sides[1]) >= std::max(1l, tile / 2), "the image is too small for the tiles of the model");
    long before[2];
    std::vector<long> starts[2];
    for (int axis : {0, 1}) {
        const long padded = std::max(tile, sides[axis]);
        before[axis] = (padded - sides[axis]) / 2;
        for (long start = 0; start < padded - tile; start += stride) starts[axis].push_back(start);
        starts[axis].push_back(padded - tile);
    }
    const auto mirrored = [](long i, long length) { return i < 0 ? -i : i < length ? i : 2 * (length - 1) - i; };
    const auto window = [tile](long i) { return std::pow(std::sin(std::acos(-1.0) * (i + 0.5) / tile), 2); };
    std::vector<double> sum(sides[0] * sides[1], 0.0), total(sum);
    ov::Tensor input(ov::element::f32, {1, image.channels, size_t(tile), size_t(tile)});
    for (long top : starts[0])
        for (long left : starts[1]) {
            float* to = input.data<float>();
            for (size_t c = 0; c < image.channels; ++c)
                for (long y = 0; y < tile; ++y)
                    for (long x = 0; x < tile; ++x)
                        *to++ = float(image.values[(c * sides[0] + mirrored(top + y - before[0], sides[0])) * sides[1] +
                                                   mirrored(left + x - before[1], sides[1])]);
            network.set_input_tensor(input);
            network.infer();
            const float* found = network.get_output_tensor().data<float>();  // plane 0 is the map
            for (long y = 0; y < tile; ++y)
                for (long x = 0; x < tile; ++x) {
                    const long row = top + y - before[0], column = left + x - before[1];
                    if (row < 0 || row >= sides[0] || column < 0 || column >= sides[1]) continue;
                    sum[row * sides[1] + column] += window(y) * window(x) * found[y * tile + x];
                    total[row * sides[1] + column] += window(y) * window(x);
                }
        }
    for (size_t i = 0; i < sum.size(); ++i) {
        sum[i] /= total[i];
        require(std::isfinite(sum[i]), "the anomaly map has values that are not finite");
    }
    return sum;
}

double score(const std::vector<double>& map, size_t height, size_t width, const Settings& settings) {
    const auto largest = [&](double sigma) {
        const auto rows = weighted(map, height, width, 1, gaussian(width, sigma));
        const auto smooth = weighted(rows, 1, height, width, gaussian(height, sigma));
        return *std::max_element(smooth.begin(), smooth.end());
    };
    const std::string& name = settings.at("score");
    const double sigma = std::stod(settings.at("score_sigma"));
    if (name == "smoothed-max") return largest(sigma);
    if (name == "multi-scale-max")
        return std::cbrt(std::max(0.0, largest(sigma)) * std::max(0.0, largest(2 * sigma)) * std::max(0.0, largest(4 * sigma)));
    std::vector<double> sorted(map);
    std::sort(sorted.begin(), sorted.end());
    if (name == "max") return sorted.back();
    require(name == "mean" || name == "top-quantile", "the score '" + name + "' is not known");
    auto from = sorted.begin();
    if (name == "top-quantile") {
        const double at = std::ceil(std::stod(settings.at("score_quantile")) * (sorted.size() - 1));
        from = std::lower_bound(sorted.begin(), sorted.end(), sorted[size_t(at)]);
    }
    double sum = 0;
    for (auto value = from; value != sorted.end(); ++value) sum += *value;
    return sum / double(sorted.end() - from);
}

int main(int count, char** words) try {
    require(count > 2, "usage: inspect EXPORTED IMAGE...");
    const std::string folder = words[1];
    const Settings settings = read_settings(folder + "/settings.json");
    ov::Core core;  // reads ONNX as well; by default the precision, and so the score, depends on the processor
    auto network = core.compile_model(folder + "/" + settings.at("graph"), "CPU", {{"INFERENCE_PRECISION_HINT", "f32"}}).create_infer_request();
    for (int number = 2; number < count; ++number) {
        Image image = read_image(words[number], settings);
        const std::string other = other_kind(image, settings);
        preprocess(image, settings, words[number]);
        const double found = score(anomaly_map(image, network, settings), image.height, image.width, settings);
        const double threshold = std::stod(settings.at("threshold"));
        std::cout << "{\"image\": " << std::quoted(words[number]) << std::setprecision(9) << ", \"score\": " << found
                  << ", \"threshold\": " << threshold << ", \"rejected\": " << (found > threshold || !other.empty() ? "true" : "false")
                  << ", \"other_kind\": " << (other.empty() ? "null" : "\"" + other + "\"") << "}" << std::endl;
    }
    return 0;
} catch (const std::exception& error) {
    std::cerr << "inspect: " << error.what() << std::endl;
    return 2;
}
